"""What hosts show of `retouch`."""

from __future__ import annotations

from host_bridge.effects import EffectDescriptor, Param
from inference_server.effects.common import CROP, composite_params


def _edit(name: str, label: str, hint: str) -> Param:
    return Param(name, "double", label, 0.0, hint, -1.0, 1.0, -1.0, 1.0)


def _tint(name: str, label: str, default: tuple[float, float, float], hint: str) -> Param:
    return Param(name, "rgb", label, default, hint, 0.0, 1.0, 0.0, 1.0, parent="tints")


EDITS: tuple[Param, ...] = (
    _edit("smile", "Smile", "Corners of the mouth and cheeks up (above 0) or down (below 0)"),
    _edit(
        "mouth_open",
        "Mouth open",
        "Lower lip and chin down, or closed where the mouth is open. What comes to light between closed lips is "
        "a dark interior: teeth and tongue that the plate does not show are not invented",
    ),
    _edit(
        "eye_openness",
        "Eye openness",
        "Lids apart or together; at -1 the eyes are shut. Shut lids show the stretched skin above the eye",
    ),
    _edit("eye_size", "Eye size", "The whole eye larger or smaller"),
    _edit("brow_raise", "Brow raise", "Brows up or down"),
    _edit("nose_width", "Nose width", "Wings of the nose apart or together"),
    _edit("jaw", "Jaw", "Stronger, wider or weaker, narrower jaw and chin"),
    _edit("face_width", "Face width", "From the temples to the jaw; eyes, nose and mouth keep their size"),
    _edit("head_slimness", "Head slimness", "The whole head with hair and ears slimmer or wider"),
    _edit(
        "age",
        "Age",
        "Older: wrinkles and folds deeper, hair greyer. Younger: both softer. Wrinkles come from the plate; only "
        "the large folds are shaded from the mesh",
    ),
    _edit("skin_smoothing", "Skin smoothing", "Blemishes and unevenness softened, or brought out; pores stay"),
    _edit("lip_color", "Lip colour", "Lips toward the lip tint, or away from it"),
    _edit("cheek_color", "Cheek colour", "Blush of the cheek tint, or paler"),
    _edit("eye_brightness", "Eye brightness", "Whites and irises lighter or darker"),
)

RETOUCH = EffectDescriptor(
    identifier="retouch",
    label="Retouch",
    version="1.0",
    kind="edit",
    summary="Changes expression, proportions, age and colour of a face by attribute directions, in the given order.",
    params=(
        Param("tints", "group", "Tints"),
        _tint("lip_tint", "Lip tint", (0.72, 0.13, 0.20), "Where lip colour leads, as shown on a display"),
        _tint("cheek_tint", "Cheek tint", (0.88, 0.38, 0.38), "Where cheek colour leads, as shown on a display"),
        *CROP,
        *composite_params("delta", grain=False),
    ),
    edits=EDITS,
    composite="delta",
    longest_step_s=1.0,
)
