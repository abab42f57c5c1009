"""Which networks the bench knows, at which sizes: those of the official files, and small ones for a quick look."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

Inputs = tuple[Any, ...]


@dataclass(frozen=True)
class Case:
    """`build(quick)` returns the network (CPU, freshly initialised) and the arguments of one call, batch 1.

    `size` and `quick_size` say for people what goes in and comes out.
    """

    build: Callable[[bool], tuple[nn.Module, Inputs]]
    size: str
    quick_size: str


def _picture(side: int, channels: int = 3) -> Tensor:
    return torch.rand(1, channels, side, side) * 2 - 1


def _stylegan2(size: int) -> Callable[[bool], tuple[nn.Module, Inputs]]:
    def build(quick: bool) -> tuple[nn.Module, Inputs]:
        from inference_server.networks.stylegan2 import Generator

        network = Generator(32, channel_max=64) if quick else Generator(size)
        return network, (torch.randn(1, 512), None)

    return build


def _stylegan3(size: int, rotation: bool) -> Callable[[bool], tuple[nn.Module, Inputs]]:
    def build(quick: bool) -> tuple[nn.Module, Inputs]:
        from inference_server.networks.stylegan3 import StyleGAN3, StyleGAN3Config, config_r, config_t

        if quick:
            kernel = 1 if rotation else 3
            config = StyleGAN3Config(32, kernel, rotation, 1024, 32, num_layers=6)
        else:
            config = config_r(size) if rotation else config_t(size)
        return StyleGAN3(config), (torch.randn(1, 512),)

    return build


def _dualstylegan(quick: bool) -> tuple[nn.Module, Inputs]:
    from inference_server.networks.dualstylegan import DualStyleGAN

    network = DualStyleGAN(64, channel_max=32) if quick else DualStyleGAN(1024)
    return network, (torch.randn(1, 512), torch.randn(1, 512))


def _vtoonify(dual: bool) -> Callable[[bool], tuple[nn.Module, Inputs]]:
    def build(quick: bool) -> tuple[nn.Module, Inputs]:
        from inference_server.networks.vtoonify import VToonify

        network = VToonify("dualstylegan" if dual else "toonify", channel_max=32 if quick else 512)
        return network, (_picture(64 if quick else 256, 22), torch.randn(1, 512))

    return build


def _encoder(e4e: bool) -> Callable[[bool], tuple[nn.Module, Inputs]]:
    def build(quick: bool) -> tuple[nn.Module, Inputs]:
        from inference_server.networks.psp import E4eEncoder, PspEncoder

        side = 64 if quick else 256
        sizes: dict[str, Any] = {"widths": (16, 16, 32, 32), "depths": (1, 1, 1, 1)} if quick else {}
        network = E4eEncoder(18, side, 3, **sizes) if e4e else PspEncoder("w+", 18, side, 3, **sizes)
        return network, (_picture(side),)

    return build


def _bisenet(quick: bool) -> tuple[nn.Module, Inputs]:
    from inference_server.networks.bisenet import BiSeNet

    return BiSeNet(width=8 if quick else 64), (_picture(64 if quick else 512),)


def _raft(small: bool) -> Callable[[bool], tuple[nn.Module, Inputs]]:
    def build(quick: bool) -> tuple[nn.Module, Inputs]:
        from inference_server.networks.raft import BASIC, RAFT, SMALL

        side, iterations = (64, 2) if quick else (512, 20)
        return RAFT(SMALL if small else BASIC), (
            _picture(side) * 127.5 + 127.5,
            _picture(side) * 127.5 + 127.5,
            iterations,
        )

    return build


def _hrnet(quick: bool) -> tuple[nn.Module, Inputs]:
    from inference_server.networks.hrnet import HRNet

    network = HRNet(98, channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=1) if quick else HRNet(98)
    return network, (_picture(64 if quick else 256),)


def _arcface(quick: bool) -> tuple[nn.Module, Inputs]:
    from inference_server.networks.arcface import ArcFace

    network = ArcFace(widths=(16, 16, 32, 32), depths=(1, 1, 1, 1)) if quick else ArcFace()
    return network, (_picture(112),)


def _lpips(trunk: Any) -> Callable[[bool], tuple[nn.Module, Inputs]]:
    def build(quick: bool) -> tuple[nn.Module, Inputs]:
        from inference_server.networks.lpips import LPIPS

        side = 64 if quick else 256
        return LPIPS(trunk, 8 if quick else 1), (_picture(side), _picture(side))

    return build


CASES: Mapping[str, Case] = MappingProxyType(
    {
        "stylegan2-256": Case(_stylegan2(256), "z to 256x256", "z to 32x32, 64 channels"),
        "stylegan2-1024": Case(_stylegan2(1024), "z to 1024x1024", "z to 32x32, 64 channels"),
        "stylegan3-r-256": Case(_stylegan3(256, True), "z to 256x256", "z to 32x32, 32 channels"),
        "stylegan3-t-256": Case(_stylegan3(256, False), "z to 256x256", "z to 32x32, 32 channels"),
        "stylegan3-r-1024": Case(_stylegan3(1024, True), "z to 1024x1024", "z to 32x32, 32 channels"),
        "stylegan3-t-1024": Case(_stylegan3(1024, False), "z to 1024x1024", "z to 32x32, 32 channels"),
        "dualstylegan-1024": Case(_dualstylegan, "w, w to 1024x1024", "w, w to 64x64, 32 channels"),
        "vtoonify-d": Case(_vtoonify(True), "256x256 to 1024x1024", "64x64 to 256x256, 32 channels"),
        "vtoonify-t": Case(_vtoonify(False), "256x256 to 1024x1024", "64x64 to 256x256, 32 channels"),
        "psp": Case(_encoder(False), "256x256 to 18 codes", "64x64, 4 units"),
        "e4e": Case(_encoder(True), "256x256 to 18 codes", "64x64, 4 units"),
        "bisenet": Case(_bisenet, "512x512", "64x64, width 8"),
        "raft-basic": Case(_raft(False), "512x512 pair, 20 iterations", "64x64 pair, 2 iterations"),
        "raft-small": Case(_raft(True), "512x512 pair, 20 iterations", "64x64 pair, 2 iterations"),
        "hrnet": Case(_hrnet, "256x256 to 98 maps", "64x64, thin"),
        "arcface": Case(_arcface, "112x112", "112x112, 4 units"),
        "lpips-vgg": Case(_lpips("vgg"), "256x256 pair", "64x64 pair, thin"),
        "lpips-alex": Case(_lpips("alex"), "256x256 pair", "64x64 pair, thin"),
    }
)
