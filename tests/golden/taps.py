"""Reads tensors from inside a network while it runs, for the recorded intermediates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def tapped(module: nn.Module, taps: Mapping[str, str]) -> Iterator[dict[str, Tensor]]:
    """Collects {output name: result of the submodule at that path}, of its first call inside the block.

    A submodule that does not exist at this size, or is not called, leaves its name out, which the harness allows
    for intermediates.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any, result: Tensor) -> None:
            found.setdefault(name, result)

        return hook

    modules = dict(module.named_modules())
    handles = [modules[path].register_forward_hook(keep(name)) for name, path in taps.items() if path in modules]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
