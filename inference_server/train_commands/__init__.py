"""`faceplate train ...`: takes networks from the model store, runs the training loop, puts the result into the store.

`inference_server.training` knows nothing of the store, the cards or the wire; this package joins them. `cli.py` is the
table of commands, `running.py` what they do alike, and one module each says what a command needs.
"""
