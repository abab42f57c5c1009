"""Every number of VToonify's training, as published, as the defaults of two frozen dataclasses.

Sources: the paper (arXiv 2209.11224, section 5 and equations 1 to 9) and facts recorded from the authors' training
program. What neither says is marked "ours" in the configurations of `inference_server/training/configs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from inference_server.networks.vtoonify import Backbone
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.augment import AffineSettings
from inference_server.training.tables import from_table

TOON_BLEND = (1.0,) * 9 + (0.0,) * 9  # cartoon and caricature: fine-tuned up to 64 px, FFHQ above


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes of the network; they are those of its teacher. See `networks.vtoonify.VToonify`."""

    in_size: int = 256
    out_size: int = 1024
    style_dim: int = 512
    n_mlp: int = 8
    channel_multiplier: int = 2
    num_res_layers: int = 6
    parsing_classes: int = 19
    channel_max: int = 512


@dataclass(frozen=True)
class DataSettings:
    """How pairs of face and target are made from the two generators.

    `edit_rows`: which rows of the code an attribute direction is added to, first and one past the last. `truncation`:
    factor on the face's code, towards zero. `blend` (T only): for each layer the share of the fine-tuned generator.
    """

    truncation: float = 0.5
    edit_rows: tuple[int, int] = (3, 7)
    blend: tuple[float, ...] = TOON_BLEND


@dataclass(frozen=True)
class StyleSettings:
    """What the model can do afterwards (D only; T has one style).

    `any_style`: every exemplar of the collection, else only number `exemplar`, counted from 0. `any_degree`: style
    degrees from 0 to 1, else only `degree`. `colour_transfer`: colours of the exemplar, else of the frame.
    """

    any_style: bool = False
    exemplar: int = 0
    any_degree: bool = False
    degree: float = 0.5
    colour_transfer: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= 1:
            raise ValueError(f"degree {self.degree} must lie between 0 and 1")
        if self.exemplar < 0:
            raise ValueError(f"exemplar {self.exemplar} must not be negative")


@dataclass(frozen=True)
class CommonSettings:
    """What both stages have. `id` names the result in the model store, `models` the networks learned from: by role,
    what they are called there; filled in by whoever loads them, so that a run goes on with the same ones only.

    `iterations` is the length that the schedules below refer to, normally that of the run. `rate` and `betas` are
    Adam's, of every optimiser. `held_out`: pairs kept aside for score and samples.
    """

    id: str = "my-vtoonify"
    title: str = "My VToonify"
    backbone: Backbone = "dualstylegan"
    models: dict[str, str] = field(default_factory=dict)
    iterations: int = 2_000
    rate: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.99)
    held_out: int = 8
    network: NetworkSettings = field(default_factory=NetworkSettings)
    data: DataSettings = field(default_factory=DataSettings)
    style: StyleSettings = field(default_factory=StyleSettings)


@dataclass(frozen=True)
class EncoderSettings(CommonSettings):
    """First stage: the encoder learns the teacher's 32 px features (equations 1 and 8).

    `plain_share`: the first part of the run in which the style degree is 0, where it is free.
    """

    stage: Literal["encoder"] = "encoder"
    iterations: int = 30_000
    plain_share: float = 0.25


@dataclass(frozen=True)
class LossSettings:
    """Weights and sizes of the losses (equations 2 to 9).

    `perceptual` is published for the sum over the `perceptual_batch` pictures of one GPU. `perceptual_size` and
    `adversarial_size`: sides to which pictures are averaged before. The allowed mean of a mask at style degree d is
    `mask_floor` + `mask_range` * (1 - d) ^ `mask_power`. `flicker_crop`: side of the crop of a full-size frame.
    """

    mse: float = 0.1
    perceptual: float = 0.01
    perceptual_batch: int = 4
    perceptual_size: int = 512
    adversarial: float = 0.01
    adversarial_size: int = 256
    mask: float = 0.0005
    mask_floor: float = 0.1
    mask_range: float = 0.9
    mask_power: float = 2.0
    flicker: float = 1.0
    flicker_crop: int = 896


@dataclass(frozen=True)
class TranslatorSettings(CommonSettings):
    """Second stage: encoder and fusion learn pairs. `degrees`: those drawn from where the style degree is free."""

    stage: Literal["translator"] = "translator"
    iterations: int = 2_000
    degrees: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    losses: LossSettings = field(default_factory=LossSettings)
    affine: AffineSettings = field(default_factory=AffineSettings)


def network_arguments(settings: CommonSettings) -> dict[str, Any]:
    """Arguments of `networks.vtoonify.VToonify`, and the configuration on its model card."""
    sizes = settings.network
    return {"backbone": settings.backbone, **{name: getattr(sizes, name) for name in sizes.__dataclass_fields__}}


def vtoonify_settings(table: Mapping[str, Any]) -> EncoderSettings | TranslatorSettings:
    """The settings of a [recipe] table; TrainingError `training.config`."""
    kinds: dict[str, type[EncoderSettings | TranslatorSettings]] = {
        "encoder": EncoderSettings,
        "translator": TranslatorSettings,
    }
    kind = kinds.get(str(table.get("stage")))
    if kind is None:
        raise TrainingError(
            "training.config",
            f"recipe.stage is {table.get('stage')!r}",
            remedy="Allowed: 'encoder', 'translator'.",
            value=table.get("stage"),
        )
    return from_table(kind, table, "recipe.")
