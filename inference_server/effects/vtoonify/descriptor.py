"""What hosts show of `vtoonify`: controls that follow what each imported network can do."""

from __future__ import annotations

from host_bridge.effects import Clip, EffectDescriptor, Param
from inference_server.effects.common import choices_of, composite_params, framing_sides, matte_params, precision_param
from inference_server.effects.vtoonify.variants import ENCODER, Imported, Variant
from inference_server.models.store import ModelStore

IDENTIFIER = "vtoonify"
VERSION = "1.0"
DIS = "dis"
CROP_MODES = ("follow", "fixed", "published")
WHOLE_CROP = "crop"
"""What `regions` may say besides the names of regions."""


def describe(store: ModelStore) -> EffectDescriptor:
    """The effect with the models that are imported now."""
    return described(Imported.of(store))


def described(imported: Imported) -> EffectDescriptor:
    """The effect with these models."""
    variants = sorted(imported.variants.values(), key=lambda v: v.id)
    return EffectDescriptor(
        identifier=IDENTIFIER,
        label="VToonify",
        version=VERSION,
        kind="stylize",
        summary="Turns the head into a drawn character by an imported VToonify network, steady over the shot.",
        clips=(
            Clip("Source"),
            Clip("Mask", optional=True),
            Clip("Style", optional=True, hint="A portrait as exemplar, for networks that take any style"),
            Clip("Output"),
        ),
        params=(
            *_style_params(variants),
            *matte_params("head", 4.0, 8.0, f"{WHOLE_CROP} is the whole crop with a soft edge."),
            *_crop(),
            *_network(imported.flows),
            *composite_params("replace", True),
        ),
        composite="replace",
        temporal=True,
        longest_step_s=20.0,
        licence="Apache-2.0; each imported network carries its own terms",
        models=(ENCODER,),
    )


def _style_params(variants: list[Variant]) -> tuple[Param, ...]:
    ids = choices_of(v.id for v in variants)
    styles = choices_of(dict.fromkeys(name for v in variants for name in v.styles))
    titles = "; ".join(f"{v.id}: {v.model.card.title}" for v in variants)
    return (
        Param(
            "model",
            "choice",
            "Model",
            ids[0],
            "The imported network; more come by `faceplate models pull ID` or `faceplate models import FILE`. "
            + titles,
            choices=ids,
            animates=False,
        ),
        Param(
            "style",
            "choice",
            "Style",
            styles[0],
            "The style of the collection, by the name of its exemplar picture; a Style clip takes its place. Networks "
            "of one style show theirs, VToonify-T has one without a name.",
            choices=styles,
            animates=False,
            depends="model",
            choices_for=tuple((v.id, v.styles) for v in variants),
            acts_for=choices_of(v.id for v in variants if v.dual),
        ),
        Param(
            "degree",
            "double",
            "Structure degree",
            0.5,
            "How far the shape of the face becomes the style's: 0 keeps the face's own. Networks that were trained for "
            "one degree have that one.",
            0.0,
            1.0,
            0.0,
            1.0,
            depends="model",
            acts_for=choices_of(v.id for v in variants if v.any_degree),
        ),
        Param(
            "color_transfer",
            "boolean",
            "Colour transfer",
            True,
            "Whether the style's colours are taken, for networks that can; all others keep the plate's.",
            animates=False,
            depends="model",
            acts_for=choices_of(v.id for v in variants if v.color_transfer),
        ),
        Param(
            "color",
            "double",
            "Colour degree",
            1.0,
            "How far the colours become the style's where colour transfer is on: 0 keeps the plate's.",
            0.0,
            1.0,
            0.0,
            1.0,
            depends="model",
            acts_for=choices_of(v.id for v in variants if v.color_transfer),
        ),
    )


def _crop() -> tuple[Param, ...]:
    return (
        Param("framing", "group", "Crop", hint="How much of the plate around the face the network sees"),
        Param(
            "crop",
            "choice",
            "Crop",
            "follow",
            "follow moves with the face; fixed stays where the face is in the first good frame; published is the "
            "crop, blur and resampling of VToonify's authors, fixed as well.",
            choices=CROP_MODES,
            animates=False,
            parent="framing",
        ),
        *framing_sides(),
    )


def _network(flows: tuple[str, ...]) -> tuple[Param, ...]:
    return (
        Param("network", "group", "Network"),
        Param(
            "parsing_smoothing",
            "boolean",
            "Smooth parsing",
            True,
            "Whether the face parser's maps are smoothed over time along the motion, against flicker. The built-in "
            "mattes, which stand in where no parser is imported, are steady already.",
            animates=False,
            parent="network",
        ),
        Param(
            "parsing_window",
            "integer",
            "Smoothing window",
            5,
            "Frames on either side that the smoothing looks at.",
            1,
            10,
            1,
            10,
            animates=False,
            parent="network",
        ),
        Param(
            "flow",
            "choice",
            "Motion",
            DIS,
            "What measures the motion for the smoothing: OpenCV's dis, or an imported RAFT.",
            choices=(DIS, *flows),
            animates=False,
            parent="network",
        ),
        precision_param(
            "Of the network's convolutions. fp16 and bf16 are for GPUs: half the memory and a fraction of the time.",
            "network",
        ),
    )
