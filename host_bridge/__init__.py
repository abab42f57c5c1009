"""The wire contract and the thin client: standard library and pyzmq only."""

__version__ = "0.1.0"
