"""A shot of aligned faces, and a generator seen as codes to pictures: what recipes that work on one shot begin from.

Decides what a recipe may know of a generator. StyleGAN2 and StyleGAN3 are known here; another one comes in as a
`Synthesis` of its own. Pictures of a shot are asked for one by one, so that a long shot is never in memory as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from inference_server.networks.stylegan2 import Generator
from inference_server.networks.stylegan3 import StyleGAN3
from inference_server.training.errors import TrainingError

Render = Callable[[nn.Module, Tensor, "Tensor | None"], Tensor]


class Frames(Protocol):
    """The aligned pictures of a shot, in the order of their codes."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Tensor:
        """[3, S, S] float32 on the CPU, display-encoded sRGB in -1..1. Called from several threads at once."""
        ...


@dataclass(frozen=True)
class Synthesis:
    """A generator seen as W+ codes to pictures.

    network    its name on model cards
    size       side of its pictures
    rows       rows of a code, each `width` long
    render     (module, codes [B, rows, width], placements [B, 3, 3] or None) -> [B, 3, size, size], nominally -1..1,
               not clamped; the same picture for the same code, whatever stands beside it in the batch
    bypassed   what the names of parameters begin with that codes do not pass through (the mapping network)
    """

    network: str
    size: int
    rows: int
    width: int
    render: Render
    bypassed: tuple[str, ...]

    def trained(self, module: nn.Module) -> Iterator[nn.Parameter]:
        """The parameters that a picture depends on when its code is given."""
        return (value for name, value in module.named_parameters() if not name.startswith(self.bypassed))


def synthesis_of(module: nn.Module) -> Synthesis:
    """What is known of a StyleGAN2 or StyleGAN3; TrainingError `training.config` for anything else."""
    if isinstance(module, Generator):
        return Synthesis("stylegan2", module.size, module.n_latent, module.style_dim, _stylegan2, ("style.",))
    if isinstance(module, StyleGAN3):
        own = module.config
        return Synthesis("stylegan3", own.resolution, own.num_ws, own.w_dim, _stylegan3, ("mapping.",))
    raise TrainingError(
        "training.config",
        f"{type(module).__name__} is no generator that is known",
        remedy="Choose a StyleGAN2 or a StyleGAN3, or say its Synthesis.",
        value=type(module).__name__,
    )


def _stylegan2(module: nn.Module, codes: Tensor, placements: Tensor | None) -> Tensor:
    """With the checkpoint's own noise maps."""
    if placements is not None:
        raise misfit("a StyleGAN2 draws aligned faces only; placements are for a StyleGAN3")
    g = cast(Generator, module)
    return g.synthesis(codes, g.stored_noise())


def _stylegan3(module: nn.Module, codes: Tensor, placements: Tensor | None) -> Tensor:
    return cast(Tensor, cast(StyleGAN3, module).synthesis(codes, placements))


@dataclass(frozen=True)
class AlignedShot:
    """One face of a shot.

    frames      its pictures, of the generator's size
    codes       [F, rows, width] of every frame, as the encoder read them
    placements  [F, 3, 3] where a StyleGAN3 draws the face elsewhere than aligned (networks.stylegan3), or None
    """

    frames: Frames
    codes: Tensor
    placements: Tensor | None = None


def check_codes(codes: Tensor, synthesis: Synthesis, placements: Tensor | None = None) -> None:
    """TrainingError `training.config` unless codes and placements are those of at least one frame for the generator."""
    shape = list(codes.shape)
    if len(shape) != 3 or shape[0] < 1 or shape[1:] != [synthesis.rows, synthesis.width]:
        wanted = f"[frames, {synthesis.rows}, {synthesis.width}]"
        raise misfit(f"codes of shape {shape} for a {synthesis.network} of {synthesis.size} px, expected {wanted}")
    if not codes.isfinite().all():
        raise misfit("codes that are not finite")
    if placements is not None and tuple(placements.shape) != (shape[0], 3, 3):
        raise misfit(f"placements of shape {list(placements.shape)}, expected [{shape[0]}, 3, 3]")


def check_frames(frames: Frames, count: int, size: int) -> None:
    """TrainingError `training.config` unless there are `count` pictures, the first of the size."""
    if len(frames) != count:
        raise misfit(f"{len(frames)} pictures for {count} codes")
    shape = tuple(frames.picture(0).shape)
    if shape != (3, size, size):
        raise misfit(f"pictures of shape {list(shape)} for a generator of {size} px, expected [3, {size}, {size}]")


def misfit(what: str) -> TrainingError:
    """Generator, codes and pictures that do not go together."""
    return TrainingError(
        "training.config",
        f"this does not go together: {what}",
        remedy="Use the generator and the encoder that the shot was inverted with.",
    )


def evenly(count: int, wanted: int) -> list[int]:
    """At most `wanted` of `count` places, evenly spread, ends included."""
    wanted = min(count, wanted)
    return sorted({round(i * (count - 1) / max(1, wanted - 1)) for i in range(wanted)})


def fingerprint(*tensors: Tensor | None) -> str:
    """SHA-256 of shapes and values: by it a run knows again what it was started with."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            digest.update(b"none")
            continue
        own = tensor.detach().to("cpu").contiguous()
        digest.update(f"{own.dtype}{list(own.shape)}".encode())
        digest.update(own.view(torch.uint8).numpy().tobytes() if own.ndim else own.numpy().tobytes())
    return digest.hexdigest()


def rows_of(tensor: Tensor | None, places: Sequence[int], device: torch.device) -> Tensor | None:
    """The rows at `places` on the device; None of None."""
    return None if tensor is None else tensor[list(places)].to(device)
