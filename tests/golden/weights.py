"""Puts a manifest's synthetic weights into one of our modules, strictly, names and shapes as published."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import nn

from tests.golden.manifest import Manifest, ManifestError, Parameter

Module = TypeVar("Module", bound=nn.Module)


def published_shapes(manifest: Manifest, module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes that `module.state_dict()` must have: all published ones, less architecture constants
    and aliases that the module does not register."""
    own = module.state_dict()
    return {p.name: p.shape for p in manifest.parameters if p.name in own or not (p.constant or p.alias_of is not None)}


def name_differences(manifest: Manifest, module: nn.Module) -> list[str]:
    """What a strict load would refuse, as text; empty when names and shapes agree. Works on meta modules."""
    ours = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    published = published_shapes(manifest, module)
    return [
        f"{name}: ours {ours.get(name)}, published {published.get(name)}"
        for name in sorted(set(ours) | set(published))
        if ours.get(name) != published.get(name)
    ]


def load_synthetic(build: Callable[[], Module], manifest: Manifest) -> Module:
    """Builds the module on the CPU, loads the synthetic weights with `strict=True`, and sets eval mode.

    Constants of the architecture (blur kernels, filter taps) keep the value that the module built itself.
    """
    module = build()
    differences = name_differences(manifest, module)
    if differences:
        shown = "; ".join(differences[:6])
        raise ManifestError(f"{len(differences)} state-dict entries differ from the published ones: {shown}")
    state = module.state_dict()
    filled = [p for p in manifest.parameters if p.name in state and not p.constant]
    with ThreadPoolExecutor(max_workers=2) as pool:  # numpy draws without holding the interpreter
        for p, value in zip(filled, pool.map(Parameter.value, filled), strict=True):
            state[p.name] = torch.from_numpy(value)
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)
