"""Which generators, encoders and helpers of this effect are imported, and what fits what. No torch: the gateway asks.

Sizes are read from the models' cards: a card's configuration is what its network is built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from host_bridge.errors import EffectError
from inference_server.effects.common import NONE
from inference_server.effects.library import face_parser, needed_model
from inference_server.models.store import ModelStore, StoredModel

STYLEGAN2, STYLEGAN3_R, STYLEGAN3_T = "stylegan2", "stylegan3-r", "stylegan3-t"
LPIPS = ("lpips-alex", "torchvision-alexnet")
"""The perceptual distance of adaptation and expression: its linear weights and its trunk."""
_FIRST = (
    "stylegan2-ffhq",
    "stylegan2-ada-ffhq",
    "e4e-ffhq",
    "restyle-e4e-ffhq",
    "hrnet-wflw",
)  # before others in lists
_CODE = 512


@dataclass(frozen=True)
class GeneratorModel:
    """An imported face generator. `size` is the side of its pictures, `layers` x `width` a W+ code."""

    model: StoredModel
    kind: str
    size: int
    layers: int
    width: int

    @property
    def id(self) -> str:
        return self.model.id

    @property
    def turns(self) -> bool:
        """Whether it takes a transform: the face is drawn where it is in the plate (StyleGAN3)."""
        return self.kind != STYLEGAN2


@dataclass(frozen=True)
class EncoderModel:
    """An imported encoder into W+. `size` is the side of its input; one of several `looks` compares the face with what
    the generator draws of its last code.
    """

    model: StoredModel
    size: int
    layers: int
    width: int
    looks: bool = False

    @property
    def id(self) -> str:
        return self.model.id

    def fits(self, generator: GeneratorModel) -> bool:
        """Whether its codes are the generator's."""
        return (self.layers, self.width) == (generator.layers, generator.width)


@dataclass(frozen=True)
class Imported:
    """What the store holds for this effect, at one moment."""

    models: Mapping[str, StoredModel]

    @classmethod
    def of(cls, store: ModelStore) -> Imported:
        return cls(store.models())

    @cached_property
    def generators(self) -> dict[str, GeneratorModel]:
        """StyleGAN2 and StyleGAN3 by id, those the published directions are for first."""
        found = [_generator(m) for m in self.models.values() if _network(m) in ("stylegan2", "stylegan3")]
        return {g.id: g for g in sorted(found, key=lambda g: (_rank(g.id), g.turns, g.id))}

    @cached_property
    def encoders(self) -> dict[str, EncoderModel]:
        """Encoders of pictures into W+ by id."""
        found = [_encoder(m) for m in self.models.values() if _is_encoder(m)]
        return {e.id: e for e in sorted(found, key=lambda e: (_rank(e.id), e.id))}

    @cached_property
    def landmarks(self) -> tuple[str, ...]:
        """Landmark networks with heat maps."""
        found = (m.id for m in self.models.values() if _network(m) == "hrnet")
        return tuple(sorted(found, key=lambda i: (_rank(i), i)))

    @property
    def parser(self) -> StoredModel | None:
        """The face parser, if there is one."""
        return face_parser(self.models)

    def generator(self, model_id: str) -> GeneratorModel:
        """EffectError `effect.needs_model` for an id that is no imported generator."""
        if model_id in self.generators:
            return self.generators[model_id]
        raise EffectError(
            "effect.needs_model",
            "no face generator is imported" if model_id == NONE else f"{model_id!r} is no imported face generator",
            value=model_id,
            remedy="Import one: `faceplate models show stylegan2-ffhq` says where its authors publish it, "
            "`faceplate models import FILE` takes it.",
        )

    def encoder(self, model_id: str, generator: GeneratorModel) -> EncoderModel:
        """The encoder of that id. EffectError `effect.needs_model` where it is not imported or its codes do not fit."""
        if model_id not in self.encoders:
            raise EffectError(
                "effect.needs_model",
                "no encoder is imported" if model_id == NONE else f"{model_id!r} is no imported encoder into W+",
                value=model_id,
                remedy="Import one: `faceplate models show e4e-ffhq` says where its authors publish it, "
                "`faceplate models import FILE` takes it.",
            )
        encoder = self.encoders[model_id]
        if not encoder.fits(generator):
            fitting = [e.id for e in self.encoders.values() if e.fits(generator)]
            raise EffectError(
                "effect.needs_model",
                f"{encoder.id} gives codes of {encoder.layers}x{encoder.width}, {generator.id} takes "
                f"{generator.layers}x{generator.width}",
                value=encoder.id,
                remedy=f"Use encoder={' or encoder='.join(fitting)}."
                if fitting
                else f"Import an encoder that was trained for {generator.id}.",
            )
        return encoder

    def needed(self, model_id: str, why: str) -> StoredModel:
        """EffectError `effect.needs_model` that says how to get it where it is not imported."""
        return needed_model(self.models, model_id, why, f"`faceplate models show {model_id}` says where from")


def fitting(encoders: Iterable[EncoderModel], generator: GeneratorModel) -> tuple[str, ...]:
    """Ids of the encoders whose codes are the generator's."""
    return tuple(e.id for e in encoders if e.fits(generator))


def _network(model: StoredModel) -> str:
    part = model.card.parts.get("main")
    return "" if part is None else part.network


def _rank(model_id: str) -> int:
    return _FIRST.index(model_id) if model_id in _FIRST else len(_FIRST)


def _generator(model: StoredModel) -> GeneratorModel:
    config = model.card.parts["main"].config
    if _network(model) == "stylegan2":
        size = int(config.get("size", 1024))
        return GeneratorModel(
            model, STYLEGAN2, size, 2 * (size.bit_length() - 1) - 2, int(config.get("style_dim", _CODE))
        )
    kind = STYLEGAN3_R if bool(config.get("radial", True)) else STYLEGAN3_T
    layers = int(config.get("num_layers", 14)) + 2
    return GeneratorModel(model, kind, int(config.get("resolution", 1024)), layers, int(config.get("w_dim", _CODE)))


def _is_encoder(model: StoredModel) -> bool:
    """Whether it reads colour pictures and writes W+, not the Z+ that VToonify's pSp writes."""
    part = model.card.parts.get("main")
    if part is None or "latent_avg" not in model.card.tensors:
        return False
    if part.network == "restyle-e4e":
        return True
    into_w = part.network == "e4e" or (part.network == "psp" and part.config.get("space") == "w+")
    return into_w and int(part.config.get("channels_in", 3)) == 3


def _encoder(model: StoredModel) -> EncoderModel:
    config = model.card.parts["main"].config
    widths = config.get("widths") or [_CODE]
    looks = _network(model) == "restyle-e4e"
    rows = int(config.get("codes", 16 if looks else 18))
    return EncoderModel(model, int(config.get("image_size", 256)), rows, int(widths[-1]), looks)
