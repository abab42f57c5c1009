"""The recipes that ship with Faceplate, one module each; what several of them share has a module of its own.

A recipe states its published numbers as the defaults of one frozen settings dataclass, read from the [recipe] table
of a configuration (`inference_server/training/configs`). It loads no checkpoint itself: networks of other models come
in already built, through the factory that the command line or a test calls.
"""
