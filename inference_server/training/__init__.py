"""The one training loop and the recipes it runs.

`recipe.py` says what a recipe is, `loop.py` runs one, `config.py` reads its TOML file. Nothing here imports the rest
of the server: a worker, a command line or a torchrun process drives `loop.train` and passes its events on.
"""
