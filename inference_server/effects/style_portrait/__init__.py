"""`style_portrait`: edit an actor's attributes over a shot and keep the performance (StylePortraitVideo)."""
