"""What the long steps leave in their folders: an adapted generator, and the offsets that keep an expression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from host_bridge.errors import EffectError
from inference_server.effects.style_portrait.imported import GeneratorModel
from inference_server.effects.style_portrait.interfaces import Generator
from inference_server.models.store import sha256_of

ADAPTED = "generator.safetensors"
OFFSETS = "offsets.npz"


def save_adapted(generator: Generator, base: GeneratorModel, folder: Path) -> None:
    """Put an adapted generator into a step's folder: what adaptation changes, under the network's own names.

    The noise strengths belong to it, the noise maps and the mapping network stay those of `base`.
    """
    changed = {id(p) for p in generator.trainable()}
    state = {
        name: p.detach().to("cpu").contiguous() for name, p in generator.module.named_parameters() if id(p) in changed
    }
    draft = folder / f".{ADAPTED}.part"
    save_file(state, draft, metadata={"base": base.model.sha256})
    draft.replace(folder / ADAPTED)


def apply_adapted(generator: Generator, base: GeneratorModel, folder: Path) -> None:
    """Load a step's result into a generator made of `base`.

    Raises EffectError `effect.failed` where the file is damaged or belongs to another generator.
    """
    path = folder / ADAPTED
    own = dict(generator.module.named_parameters())
    try:
        with safe_open(path, "pt") as stored:
            meant = (stored.metadata() or {}).get("base", "")
            if meant != base.model.sha256:
                raise _unusable(path, f"it was adapted from a generator with sha256 {meant[:12]}, not {base.id}")
            with torch.no_grad():
                for name in stored.keys():  # noqa: SIM118 - not a dict
                    value = stored.get_tensor(name)
                    if name not in own or own[name].shape != value.shape:
                        raise _unusable(path, f"{name} {list(value.shape)} is no entry of {base.id}")
                    own[name].copy_(value)
    except (OSError, SafetensorError) as error:
        raise _unusable(path, str(error)) from error


def read_offsets(folder: Path, frames: Sequence[int], layers: int, width: int) -> NDArray[np.float32]:
    """The expression step's offsets [F, L, D] of the shot's frames, in their order.

    The file holds `frames` [F] and `offsets` [F, L, D]. Raises EffectError `effect.failed` where they do not fit.
    """
    path = folder / OFFSETS
    try:
        with np.load(path, allow_pickle=False) as stored:
            known, offsets = stored["frames"], stored["offsets"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise _unusable(path, str(error)) from error
    if known.tolist() != list(frames) or offsets.shape != (len(known), layers, width):
        raise _unusable(path, f"offsets {list(offsets.shape)} do not fit {len(frames)} frames of {layers}x{width}")
    return np.asarray(offsets, np.float32)


def save_offsets(folder: Path, frames: Sequence[int], offsets: NDArray[np.float32]) -> None:
    """Put offsets [F, L, D] of those frames into the expression step's folder."""
    draft = folder / f".{OFFSETS}.part"
    with draft.open("wb") as file:
        np.savez(file, frames=np.asarray(frames, np.int64), offsets=offsets)
    draft.replace(folder / OFFSETS)


class Digests:
    """sha256 of steps' results, read once for each state of a file."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, path: Path) -> str:
        """EffectError `effect.failed` where the file cannot be read."""
        try:
            stat = path.stat()
            key = (str(path), stat.st_mtime_ns, stat.st_size)
            if key not in self._known:
                self._known[key] = sha256_of(path)
        except OSError as error:
            raise _unusable(path, str(error.strerror or error)) from error
        return self._known[key]


def _unusable(path: Path, why: str) -> EffectError:
    return EffectError(
        "effect.failed",
        f"what a step left for this shot cannot be used: {why}",
        path=str(path),
        remedy="Run `faceplate adapt` again with the same plate and values.",
    )


def step_files(folders: Iterable[Path]) -> list[Path]:
    """The files of steps' folders that pixels depend on."""
    return [path for folder in folders for name in (ADAPTED, OFFSETS) if (path := folder / name).is_file()]
