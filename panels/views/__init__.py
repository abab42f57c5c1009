"""Widgets of the panel. They show what the controller holds and tell it what the artist did; rules live there."""
