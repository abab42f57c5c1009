"""The wire contract and the thin client: standard library and pyzmq only."""
