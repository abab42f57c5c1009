"""How a VToonify begins before it is trained: what is random, what is the teacher's, what lets features through."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.stylegan2 import Generator
from inference_server.networks.vtoonify import Fusion, VToonify

SMALL = 0.01  # factor on what a fusion takes from the encoder at the beginning

TRAINED = ("encoder", "fusion_out", "fusion_skip")


@torch.no_grad()
def begin(network: VToonify, teacher: DualStyleGAN | Generator, encoder: Mapping[str, Tensor] | None) -> None:
    """Fills the network in place and drops what it never reads.

    Convolutions and linear layers are Kaiming-normal (fan-in) with zero biases; generator and ModRes blocks are the
    teacher's and frozen; each fusion hands on what comes from the generator and next to nothing from the encoder.
    `encoder`: state of an encoder trained before, by names within it.
    """
    for name in TRAINED:
        for module in network.get_submodule(name).modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
    network.generator.load_state_dict(teacher.state_dict(), strict=True)
    if isinstance(teacher, DualStyleGAN):
        for own, theirs in zip(network.res, teacher.res, strict=False):  # the encoder's blocks, then colour layers
            own.load_state_dict(theirs.state_dict(), strict=True)
    for fusion in network.fusion_out:
        _hand_on(fusion.conv if isinstance(fusion, Fusion) else fusion)
    for fusion in network.fusion_skip:
        _hand_on(fusion)
    if encoder is not None:
        network.encoder.load_state_dict(dict(encoder), strict=True)
    network.drop_unread()
    network.requires_grad_(False)


def _hand_on(conv: nn.Module) -> None:
    """Makes a fusing convolution the identity in its first inputs (generator's feature, or picture)."""
    assert isinstance(conv, nn.Conv2d)
    conv.weight.mul_(SMALL)
    centre = conv.kernel_size[0] // 2
    for channel in range(conv.out_channels):
        conv.weight[channel, channel, centre, centre] += 1.0


def toonified(base: Generator, tuned: Generator, blend: Sequence[float]) -> dict[str, Tensor]:
    """The state of Toonify's generator: layer by layer, `blend` of the fine-tuned one and the rest of the base.

    Layers count as in `blend` (18 at 1024 px): conv1 is 0, to_rgb1 is 1, convs.i is i + 1, to_rgbs.b is 2b + 3; where
    two share a number they share the share. Mapping network, constant input and noise maps are the base's.
    ValueError where `blend` has another length than the generators have codes.
    """
    if len(blend) != base.n_latent:
        raise ValueError(f"blend has {len(blend)} numbers, the generators have {base.n_latent} layers")
    other = tuned.state_dict()
    buffers = {name for name, _ in base.named_buffers()}
    state = {}
    for name, own in base.state_dict().items():
        layer = _layer(name)
        mixed = own if layer is None or name in buffers else blend[layer] * other[name] + (1 - blend[layer]) * own
        state[name] = mixed
    return state


def _layer(name: str) -> int | None:
    kind, _, rest = name.partition(".")
    index = int(rest.partition(".")[0]) if kind in ("convs", "to_rgbs") else 0
    return {"conv1": 0, "to_rgb1": 1, "convs": index + 1, "to_rgbs": 2 * index + 3}.get(kind)
