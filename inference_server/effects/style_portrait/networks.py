"""The networks behind three interfaces: a generator draws codes, an encoder reads them, a landmark network sees lips.

`StyleGAN2`, `StyleGAN3`, pSp, e4e, ReStyle and HRNet are what stands behind `interfaces`. `Networks` loads them from
the model store, with what the long steps left of a shot, and lets them go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from host_bridge.errors import EffectError
from inference_server.effects.base import Resources
from inference_server.effects.style_portrait.imported import LPIPS, EncoderModel, GeneratorModel, Imported
from inference_server.effects.style_portrait.interfaces import Encoder, Generator, LandmarkNetwork
from inference_server.effects.style_portrait.results import ADAPTED, OFFSETS, Digests, apply_adapted, read_offsets
from inference_server.models.loading import load_lpips, load_network, load_tensors
from inference_server.models.store import ModelStore, StoredModel
from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.hrnet import IBUG_68, WFLW_98, HRNet
from inference_server.networks.lpips import LPIPS as Perceptual
from inference_server.networks.psp import E4eEncoder, PspEncoder
from inference_server.networks.restyle import ReStyleEncoder
from inference_server.networks.stylegan2 import Generator as StyleGAN2Network
from inference_server.networks.stylegan3 import StyleGAN3 as StyleGAN3Network

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_GENERATORS = 3  # in memory: as they were published, and adapted to two people; and their offsets

T = TypeVar("T")


class StyleGAN2:
    """With the checkpoint's own noise, so that a code is one picture."""

    turns = False

    def __init__(self, network: StyleGAN2Network) -> None:
        self.module: nn.Module = network
        self._network = network
        self.size, self.layers, self.width = network.size, network.n_latent, network.style_dim

    def __call__(self, codes: Tensor, transforms: Tensor | None = None) -> Tensor:
        if transforms is not None:
            raise ValueError("transforms: StyleGAN2 takes none")
        return self._network.synthesis(codes, self._network.stored_noise())

    def trainable(self) -> list[nn.Parameter]:
        return [p for name, p in self._network.named_parameters() if not name.startswith("style.")]


class StyleGAN3:
    """`dtype` is the precision of its layers of high rate; only CUDA devices use another than float32."""

    turns = True

    def __init__(self, network: StyleGAN3Network, dtype: torch.dtype = torch.float32) -> None:
        self.module: nn.Module = network
        self._network = network
        self._low = None if dtype is torch.float32 else dtype
        config = network.config
        self.size, self.layers, self.width = config.resolution, config.num_ws, config.w_dim

    def __call__(self, codes: Tensor, transforms: Tensor | None = None) -> Tensor:
        low = self._low if codes.is_cuda else None
        return cast(Tensor, self._network.synthesis(codes, transforms, low))

    def trainable(self) -> list[nn.Parameter]:
        names = self._network.named_parameters()
        return [p for name, p in names if name.startswith("synthesis.") and not name.startswith("synthesis.input.")]


class OneLook:
    """pSp or e4e, which look once, with the average code; autocast to `dtype` on CUDA devices."""

    def __init__(self, network: E4eEncoder | PspEncoder, average: Tensor, dtype: torch.dtype = torch.float32) -> None:
        self._network, self._average, self._dtype = network, average, dtype
        self.size, self.layers, self.width = network.image_size, network.codes, network.code_length

    def __call__(self, faces: Tensor) -> Tensor:
        half = faces.is_cuda and self._dtype is not torch.float32
        with torch.autocast(faces.device.type, self._dtype if half else torch.bfloat16, enabled=half):
            codes = self._network.encode(faces, self._average)
        return codes.float()


class ReStyle:
    """ReStyle e4e beside the generator it was trained with, which draws one picture at a time."""

    def __init__(
        self, network: ReStyleEncoder, average: Tensor, generator: Generator, dtype: torch.dtype = torch.float32
    ) -> None:
        self._network, self._average, self._generator, self._dtype = network, average, generator, dtype
        self.size, self.layers, self.width = network.image_size, network.codes, network.code_length

    def __call__(self, faces: Tensor) -> Tensor:
        half = faces.is_cuda and self._dtype is not torch.float32
        with torch.autocast(faces.device.type, self._dtype if half else torch.bfloat16, enabled=half):
            codes = self._network.encode(faces, self._average, self._draw)
        return codes.float()

    def _draw(self, codes: Tensor) -> Tensor:
        return torch.cat([self._generator(code[None].float()) for code in codes])


class HRNetLandmarks:
    """98 points of WFLW or 68 of 300W."""

    def __init__(self, network: HRNet) -> None:
        groups = {98: WFLW_98, 68: IBUG_68}.get(network.points)
        if groups is None:
            raise EffectError(
                "effect.needs_model",
                f"a landmark network of 98 or 68 points is needed, not one of {network.points}",
                value=network.points,
                remedy="Import hrnet-wflw or hrnet-300w.",
            )
        self.module: nn.Module = network
        self.inner_lip = slice(groups["inner_lip"][0], groups["inner_lip"][1] + 1)


# --- loading ---------------------------------------------------------------------------------------------------------


class Networks:
    """What is loaded. Keyed by the weights' hashes, so that a model that was imported anew is loaded anew."""

    def __init__(self, resources: Resources) -> None:
        self._device = torch.device(resources.device)
        self._store: ModelStore = resources.models
        self._report = resources.report
        self._kept: dict[str, tuple[str, object]] = {}
        self._generators: OrderedDict[tuple[str, str, str], Generator] = OrderedDict()
        self._offsets: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._digests = Digests()

    def generator(self, base: GeneratorModel, adapted: Path | None, precision: str = "fp32") -> Generator:
        """A generator for drawing, in evaluation mode; `adapted` is the folder of a finished adaptation."""
        key = (base.model.sha256, "" if adapted is None else self.digest(adapted / ADAPTED), precision)
        if key not in self._generators:
            self._report(f"loading {base.model.card.title}", 0.0)
            made = self._made(base, precision)
            if adapted is not None:
                apply_adapted(made, base, adapted)
            self._generators[key] = made
            while len(self._generators) > _GENERATORS:
                self._generators.popitem(last=False)
            self._report(f"loading {base.model.card.title}", 1.0)
        self._generators.move_to_end(key)
        return self._generators[key]

    def learner(self, base: GeneratorModel, start: Path | None = None) -> Generator:
        """A generator of its own for a step that changes it: float32, what is `trainable` has gradients.

        `start` is the folder of an earlier adaptation that it continues.
        """
        made = self._made(base, "fp32")
        if start is not None:
            apply_adapted(made, base, start)
        for parameter in made.trainable():
            parameter.requires_grad_(True)
        return made

    def encoder(self, model: EncoderModel, base: GeneratorModel, precision: str = "fp32") -> Encoder:
        """The encoder with its average code, and with the generator `base` where it looks at what that draws."""

        def load() -> Encoder:
            average = load_tensors(model.model, self._device)["latent_avg"]
            network, dtype = load_network(model.model, self._device), DTYPES[precision]
            if isinstance(network, ReStyleEncoder):
                return ReStyle(network, average, self.generator(base, None, precision), dtype)
            return OneLook(cast(E4eEncoder, network), average, dtype)

        return self._one("encoder", model.model, load, f"{precision} {base.model.sha256 if model.looks else ''}")

    def offsets(self, folder: Path, frames: Sequence[int], layers: int, width: int) -> NDArray[np.float32]:
        """`read_offsets`, read once for each state of the file."""
        key = self.digest(folder / OFFSETS)
        if key not in self._offsets:
            self._offsets[key] = read_offsets(folder, frames, layers, width)
            while len(self._offsets) > _GENERATORS:
                self._offsets.popitem(last=False)
        self._offsets.move_to_end(key)
        return self._offsets[key]

    def landmarks(self, model: StoredModel) -> LandmarkNetwork:
        """The landmark network."""
        return self._one("landmarks", model, lambda: HRNetLandmarks(cast(HRNet, load_network(model, self._device))))

    def perceptual(self, imported: Imported) -> Perceptual:
        """LPIPS on AlexNet. EffectError `effect.needs_model` where its two files are not imported."""
        heads, trunk = (imported.needed(name, "the perceptual distance") for name in LPIPS)
        return self._one("perceptual", heads, lambda: load_lpips("alex", self._device, store=self._store), trunk.sha256)

    def parser(self, model: StoredModel) -> BiSeNet:
        """The face parser."""
        return self._one("parser", model, lambda: cast(BiSeNet, load_network(model, self._device)))

    def digest(self, path: Path) -> str:
        """sha256 of a step's file."""
        return self._digests.of(path)

    def release(self, *roles: str) -> None:
        """Let go of networks: encoder, landmarks, perceptual, parser, generators."""
        for role in roles:
            self._kept.pop(role, None)
        if "generators" in roles:
            self._generators.clear()

    def _made(self, base: GeneratorModel, precision: str) -> Generator:
        network = load_network(base.model, self._device)
        if isinstance(network, StyleGAN3Network):
            return StyleGAN3(network, DTYPES[precision])
        return StyleGAN2(cast(StyleGAN2Network, network))

    def _one(self, role: str, model: StoredModel, load: Callable[[], T], more: str = "") -> T:
        wanted = f"{model.sha256} {more}"
        known = self._kept.get(role)
        if known is None or known[0] != wanted:
            self.release(role)  # before another is loaded beside it
            self._report(f"loading {model.card.title}", 0.0)
            known = self._kept[role] = (wanted, load())
            self._report(f"loading {model.card.title}", 1.0)
        return cast(T, known[1])
