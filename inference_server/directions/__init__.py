"""Semantic directions: what moves a latent code so that one attribute of a face changes.

`offered(store)` says which edits the imported directions make, `load(store, name, layers=L, size=D)` gives one of them
for a generator of L style inputs, `apply(codes, steps)` carries out an ordered list. torch is loaded when a direction
is read from the store, not before.
"""

from __future__ import annotations

from inference_server.directions.catalog import Offered, load, offered
from inference_server.directions.types import CodeEdit, Direction, apply

__all__ = ["CodeEdit", "Direction", "Offered", "apply", "load", "offered"]
