"""What hosts show of `two_stage` and `keyframe`: the same controls, with the models of each."""

from __future__ import annotations

from host_bridge.effects import EffectDescriptor, Param
from inference_server.effects.common import choices_of, composite_params, framing_sides, matte_params, precision_param
from inference_server.effects.two_stage.variants import Offered, Variant
from inference_server.models.store import ModelStore

TWO_STAGE, KEYFRAME = "two_stage", "keyframe"
VERSION = "1.0"
SEGMENT, PREROLL = 32, 8
TRAINED = "trained"
"""Of `crop` and `regions`: what the model's card says it was trained with."""
WHOLE_CROP = "crop"
"""What `regions` may say besides the names of regions."""
FOLLOWING = ("follow", "fixed")
WHOLE_PLATE = "full"


def describe_two_stage(store: ModelStore) -> EffectDescriptor:
    """The effect `two_stage` with the models that are there now."""
    return described(Offered.of(store, keyframe=False))


def describe_keyframe(store: ModelStore) -> EffectDescriptor:
    """The effect `keyframe` with the models that are there now."""
    return described(Offered.of(store, keyframe=True))


def described(offered: Offered) -> EffectDescriptor:
    """The effect with these models."""
    own = offered.keyframe
    return EffectDescriptor(
        identifier=KEYFRAME if own else TWO_STAGE,
        label="Keyframe" if own else "Two-stage",
        version=VERSION,
        kind="stylize",
        summary="Carries the look of a few frames you painted over the whole shot, by a network trained on them."
        if own
        else "Draws the head in a style that a network has learned, steady over the shot by a second one.",
        params=(
            *_style(list(offered.variants.values()), own),
            *matte_params(
                TRAINED,
                0.0,  # more would show a pale rim of what was drawn around the head
                8.0,
                f"{WHOLE_CROP} is the whole crop with a soft edge; {TRAINED} is what the model was trained to draw.",
            ),
            *_crop(),
            Param("network", "group", "Network"),
            precision_param(
                "Of the networks' convolutions. fp16 and bf16 are for GPUs: half the memory, a fraction of the time.",
                "network",
            ),
            *composite_params("replace", True),
        ),
        composite="replace",
        temporal=True,
        segment=SEGMENT,
        preroll=PREROLL,
        longest_step_s=20.0,
        licence="Apache-2.0; each model carries its own terms",
    )


def _style(variants: list[Variant], keyframe: bool) -> tuple[Param, ...]:
    ids = choices_of(v.id for v in variants)
    styles = choices_of(dict.fromkeys(name for v in variants for name in v.styles))
    several = choices_of(v.id for v in variants if len(v.styles) > 1)
    titles = "; ".join(f"{v.id}: {v.model.card.title}" for v in variants)
    source = (
        "`faceplate train keyframe`" if keyframe else "`faceplate train two_stage` or `faceplate models import FILE`"
    )

    def style(name: str, label: str, hint: str, acts: tuple[str, ...] = ()) -> Param:
        offered = tuple((v.id, v.styles) for v in variants)
        return Param(
            name,
            "choice",
            label,
            styles[0],
            hint,
            choices=styles,
            animates=False,
            depends="model",
            choices_for=offered,
            acts_for=acts,
        )

    return (
        Param(
            "model",
            "choice",
            "Model",
            ids[0],
            f"The trained network; more come by {source}. {titles}",
            choices=ids,
            animates=False,
        ),
        style("style", "Style", "The style, of those that the model has learned."),
        style("second_style", "Second style", "What `style_mix` mixes the style with.", several),
        Param(
            "style_mix",
            "double",
            "Style mix",
            0.0,
            "From the style (0) to the second style (1), for models of several styles.",
            0.0,
            1.0,
            0.0,
            1.0,
            depends="model",
            acts_for=several,
        ),
        Param(
            "degree",
            "double",
            "Style degree",
            1.0,
            "How much of the drawing is seen: 0 is the plate",
            0.0,
            1.0,
            0.0,
            1.0,
        ),
        Param(
            "refine",
            "boolean",
            "Refine over time",
            True,
            "Whether the second network looks back at the frames before and steadies the drawing. Without it every "
            "frame is drawn alone.",
            animates=False,
            depends="model",
            acts_for=choices_of(v.id for v in variants if v.refiner),
        ),
        Param(
            "background",
            "double",
            "Plate's background",
            0.0,
            "How much of the plate is put back behind the head, where the whole crop is composited: 0 is what the "
            "network drew there.",
            0.0,
            1.0,
            0.0,
            1.0,
        ),
    )


def _crop() -> tuple[Param, ...]:
    return (
        Param("framing", "group", "Crop", hint="What of the plate the network sees, and how large"),
        Param(
            "crop",
            "choice",
            "Crop",
            TRAINED,
            "trained is what the model saw in training; follow moves with the face; fixed stays where the face is in "
            "the first good frame; full is the whole plate.",
            choices=(TRAINED, *FOLLOWING, WHOLE_PLATE),
            animates=False,
            parent="framing",
        ),
        Param(
            "face_size",
            "double",
            "Face size",
            64.0,
            "Distance of the eyes in the network's picture, in pixels. A model draws best at the size it was trained "
            "with; larger is finer and slower.",
            24.0,
            512.0,
            48.0,
            192.0,
            animates=False,
            parent="framing",
            depends="crop",
            acts_for=FOLLOWING,
        ),
        Param(
            "long_side",
            "integer",
            "Longer side",
            0,
            "Of the plate in the network's picture, in pixels; 0 is the plate's own.",
            0,
            8192,
            0,
            2048,
            animates=False,
            parent="framing",
            depends="crop",
            acts_for=(WHOLE_PLATE,),
        ),
        *framing_sides("crop", FOLLOWING),
    )
