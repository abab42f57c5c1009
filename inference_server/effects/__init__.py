"""Effects and their registry."""
