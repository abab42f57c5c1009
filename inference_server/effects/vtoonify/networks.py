"""The imported networks in memory: loaded when first needed, told about while they load, let go when not needed.

Stage by stage: the encoder (over a gigabyte) is there while shots are learned and gone before one is rendered; the
generator is baked for the style at hand (networks.vtoonify_baked), after which only the baked one stays.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from inference_server.effects.base import Resources
from inference_server.effects.vtoonify.variants import Variant
from inference_server.models.loading import StyleCodes, load_network, load_style_codes, load_tensors
from inference_server.models.store import StoredModel
from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.psp import PspEncoder
from inference_server.networks.raft import RAFT
from inference_server.networks.vtoonify import VToonify
from inference_server.networks.vtoonify_baked import BakedVToonify, bake

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_STYLES = 4  # baked for two people with a keyframed colour degree, and one more of each

T = TypeVar("T")


@contextmanager
def exact() -> Iterator[None]:
    """Convolutions in the precision that was asked for, by the same algorithms every time."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


class Stylist:
    """One VToonify in one precision."""

    def __init__(self, network: VToonify, dtype: torch.dtype) -> None:
        self._network: VToonify | None = network
        self._dtype = dtype
        self._mapping: nn.Module = network.stylegan.style
        self.codes, self.code_length = network.n_latent, network.style_dim
        self.in_channels, self.upscale = network.in_channels, network.upscale
        self._baked: OrderedDict[bytes, BakedVToonify] = OrderedDict()

    def mapping(self, z: Tensor) -> Tensor:
        """Z+ [N, L, D] -> W+ [N, L, D]."""
        w: Tensor = self._mapping(z)
        return w

    def paint(self, x: Tensor, style: Tensor, degree: float) -> Tensor:
        """[1, 22, H, W] (networks.vtoonify.network_input), W+ [1, L, D] -> [1, 3, 4H, 4W] in [-1, 1], float32."""
        with exact():
            picture: Tensor = self._for(style).with_degree(degree)(x)
        return picture.clamp(-1, 1)

    def _for(self, style: Tensor) -> BakedVToonify:
        key = style.detach().cpu().numpy().tobytes()
        if key not in self._baked:
            if self._network is not None:
                baked, self._network = bake(self._network, style, dtype=self._dtype), None
            else:
                baked = next(iter(self._baked.values())).with_style(style)
            self._baked[key] = baked
            if len(self._baked) > _STYLES:
                self._baked.popitem(last=False)
        self._baked.move_to_end(key)
        return self._baked[key]


class Networks:
    """What is loaded. Keyed by the weights' hashes, so that a model that was imported anew is loaded anew."""

    def __init__(self, resources: Resources) -> None:
        self._device = torch.device(resources.device)
        self._report = resources.report
        self._kept: dict[str, tuple[str, object]] = {}

    def stylist(self, variant: Variant, precision: str) -> Stylist:
        """The network of a variant; one at a time stays."""

        def load() -> Stylist:
            return Stylist(cast(VToonify, load_network(variant.model, self._device)), DTYPES[precision])

        return self._one("stylist", variant.model, load, precision)

    def encoder(self, model: StoredModel) -> tuple[PspEncoder, Tensor]:
        """The pSp encoder and its average code."""

        def load() -> tuple[PspEncoder, Tensor]:
            average = load_tensors(model, self._device)["latent_avg"]
            return cast(PspEncoder, load_network(model, self._device)), average

        return self._one("encoder", model, load)

    def parser(self, model: StoredModel) -> BiSeNet:
        """The face parser."""
        return self._one("parser", model, lambda: cast(BiSeNet, load_network(model, self._device)))

    def flow(self, model: StoredModel) -> RAFT:
        """The motion network."""
        return self._one("flow", model, lambda: cast(RAFT, load_network(model, self._device)))

    def style_codes(self, model: StoredModel) -> StyleCodes:
        """A collection's codes."""
        return self._one("codes", model, lambda: load_style_codes(model))

    def release(self, *roles: str) -> None:
        """Let go of networks: encoder, flow."""
        for role in roles:
            self._kept.pop(role, None)

    def _one(self, role: str, model: StoredModel, load: Callable[[], T], more: str = "") -> T:
        wanted = f"{model.sha256} {more}"
        known = self._kept.get(role)
        if known is None or known[0] != wanted:
            self.release(role)  # before another is loaded beside it
            self._report(f"loading {model.card.title}", 0.0)
            known = self._kept[role] = (wanted, load())
            self._report(f"loading {model.card.title}", 1.0)
        return cast(T, known[1])
