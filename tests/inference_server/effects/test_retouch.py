"""What `retouch` promises: each direction moves or colours its own part, never folds, and stays within its matte."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from host_bridge.errors import EffectError
from inference_server.effects.base import Effect, EffectOutput, FaceInput
from inference_server.effects.retouch.descriptor import EDITS
from inference_server.effects.retouch.tone import TONE_EDITS
from inference_server.plates.color import LUMINANCE
from inference_server.plates.warp import warp_picture
from tests.inference_server.effects.conftest import Cut, Portrait, jacobian

MOVING = [edit.name for edit in EDITS if edit.name not in TONE_EDITS]

# direction: (vertex, axis, sign): at strength 1 what lies at the vertex moves that way (x right, y down)
EXPECTED: dict[str, list[tuple[int, int, int]]] = {
    "smile": [(61, 0, -1), (61, 1, -1), (291, 0, 1), (291, 1, -1), (205, 1, -1)],
    "mouth_open": [(17, 1, 1), (152, 1, 1)],
    "eye_openness": [(27, 1, -1), (257, 1, -1)],
    "eye_size": [(33, 0, -1), (133, 0, 1), (263, 0, 1), (362, 0, -1)],
    "brow_raise": [(105, 1, -1), (334, 1, -1), (52, 1, -1)],
    "nose_width": [(129, 0, -1), (358, 0, 1)],
    "jaw": [(172, 0, -1), (397, 0, 1), (152, 1, 1)],
    "face_width": [(93, 0, -1), (323, 0, 1)],
    "head_slimness": [(127, 0, 1), (356, 0, -1), (93, 0, 1), (323, 0, -1)],
}


def _edited(face: FaceInput, output: EffectOutput) -> Tensor:
    """E, scene-linear, [3, h, w], as the pipeline makes it when there is no grain."""
    moved = face.scene if output.warp is None else warp_picture(face.scene, output.warp)
    return moved if output.gain is None else moved * output.gain


def _result(face: FaceInput, output: EffectOutput) -> Tensor:
    return face.scene + output.matte * (_edited(face, output) - face.scene)


def _at(face: FaceInput, field: Tensor, vertex: int) -> Tensor:
    x, y = face.face.landmarks[vertex, :2] - np.array([face.region.x0, face.region.y0])
    return field[:, int(y), int(x)]


def _luma(scene: Tensor) -> Tensor:
    return torch.as_tensor(sum(w * c for w, c in zip(LUMINANCE, scene, strict=True)))


@pytest.mark.parametrize("name", MOVING)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_direction_moves_its_landmarks_its_way(
    retouch: Effect, portrait: Portrait, cut: Cut, name: str, sign: int
) -> None:
    face = cut(retouch, portrait, {name: 0.6 * sign})
    warp = retouch.render(face).warp
    assert warp is not None
    for vertex, axis, way in EXPECTED[name]:
        # the picture at p shows the source at p + warp: what moves right is read from the left
        moved = -float(_at(face, warp, vertex)[axis])
        assert moved * way * sign > 0.1, (vertex, moved)
    assert float(_at(face, warp, 10).abs().max()) < 0.6 or name in ("head_slimness", "face_width")


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.name)
@pytest.mark.parametrize("strength", [1.0, -1.0, 0.37])
def test_an_edit_stays_within_its_matte_and_never_folds(
    retouch: Effect, portrait: Portrait, cut: Cut, edit: object, strength: float
) -> None:
    name = edit.name  # type: ignore[attr-defined]
    face = cut(retouch, portrait, {name: strength})
    output = retouch.render(face)
    outside = output.matte == 0
    assert 0 < float((~outside).float().mean()) < 0.95
    assert 0 <= float(output.matte.min()) <= float(output.matte.max()) <= 1
    if output.warp is not None:
        assert torch.isfinite(output.warp).all()
        assert (output.warp[:, outside] == 0).all()
        assert float(jacobian(output.warp).min()) > 0
    if output.gain is not None:
        assert torch.isfinite(output.gain).all()
        assert float(output.gain.min()) > 0
        assert (output.gain[:, outside] == 1).all()
    assert float((_result(face, output) - face.scene).abs().max()) > 0.01
    for side in (output.matte[:, 0], output.matte[:, -1], output.matte[-1]):
        assert (side == 0).all()


def test_all_moving_edits_together_at_their_limits_do_not_fold(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    for sign in (1.0, -1.0):
        smooth = [(n, sign) for n in MOVING if n not in ("mouth_open", "eye_openness")]
        for edits in (smooth, smooth[::-1], [*smooth, ("mouth_open", sign), ("eye_openness", sign)]):
            warp = retouch.render(cut(retouch, portrait, edits)).warp
            assert warp is not None
            assert float(jacobian(warp).min()) > 0


def test_no_strength_is_identity(retouch: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(retouch, small, {"smile": 0.0, "age": 0.0})
    assert retouch.is_identity(face.values, face.edits)
    assert retouch.is_identity(face.values, ())
    assert not retouch.is_identity(face.values, (("smile", 0.01),))
    assert retouch.is_identity({**face.values, "mix": 0.0}, (("smile", 1.0),))
    output = retouch.render(face)
    assert output.warp is None
    assert output.gain is None
    assert float(output.matte.max()) == 0


@pytest.mark.parametrize("edit", EDITS, ids=lambda e: e.name)
def test_the_plate_is_approached_in_proportion_to_the_strength(
    retouch: Effect, small: Portrait, cut: Cut, edit: object
) -> None:
    name = edit.name  # type: ignore[attr-defined]
    for sign in (1, -1):
        changes = []
        for strength in (0.01, 0.02, 0.04):
            face = cut(retouch, small, {name: sign * strength})
            changes.append(float((_result(face, retouch.render(face)) - face.scene).abs().mean()))
        assert 0 < changes[0] < changes[1] < changes[2] < 0.01
        # in proportion, or faster where nothing is to be seen before lips part
        assert changes[0] <= 0.62 * changes[1]
        assert changes[1] <= 0.62 * changes[2]


def test_highlights_and_negative_pixels_pass_through_finite(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    face = cut(retouch, portrait, [("smile", 1.0), ("mouth_open", 0.5), ("age", 1.0), ("face_width", -1.0)])
    scene = face.scene.clone()
    x, y = (int(v) for v in face.face.landmarks[205, :2] - np.array([face.region.x0, face.region.y0]))
    scene[:, y, x], scene[:, y + 4, x + 3] = 37.0, -0.5
    bright = replace(face, scene=scene)
    output = retouch.render(bright)
    edited = _edited(bright, output)
    assert output.gain is not None
    assert torch.isfinite(edited).all()
    assert 5 < float(edited.max()) <= 37.0 * float(output.gain.max())
    assert -0.5 * float(output.gain.max()) <= float(edited.min()) < 0


def test_edits_are_applied_in_their_order(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    one = retouch.render(cut(retouch, portrait, [("mouth_open", 0.8), ("smile", 1.0)])).warp
    other = retouch.render(cut(retouch, portrait, [("smile", 1.0), ("mouth_open", 0.8)])).warp
    assert one is not None
    assert other is not None
    assert float((one - other).abs().max()) > 0.5


def test_an_edit_repeated_goes_on_where_the_first_left(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    whole = retouch.render(cut(retouch, portrait, [("jaw", 0.8)])).warp
    halves = retouch.render(cut(retouch, portrait, [("jaw", 0.4), ("jaw", 0.4)])).warp
    back = retouch.render(cut(retouch, portrait, [("jaw", 0.8), ("jaw", -0.8)])).warp
    assert whole is not None
    assert halves is not None
    assert back is not None
    assert float((whole - halves).abs().max()) < 0.15 * float(whole.abs().max())
    assert float(back.abs().max()) < 0.1 * float(whole.abs().max())


def test_a_shut_eye_hides_the_iris_and_does_not_squash_it(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    large = portrait.resized(2.0, 2.0)
    half, shut = (cut(retouch, large, {"eye_openness": s}) for s in (-0.4, -1.0))
    warp = retouch.render(half).warp
    assert warp is not None
    # what is still open shows the eyeball where it was
    for vertex in (468, 473):
        assert float(_at(half, warp, vertex).abs().max()) < 0.3
    output = retouch.render(shut)
    lid = torch.stack([_luma(_result(shut, output)), _luma(shut.scene)])
    for vertex in (468, 473):
        x, y = shut.face.landmarks[vertex, :2] - np.array([shut.region.x0, shut.region.y0])
        window = lid[:, int(y) - 4 : int(y) + 2, int(x) - 2 : int(x) + 3]
        assert float(window[0].mean()) > 1.5 * float(window[1].mean()), "the dark pupil is covered by skin"


def test_an_opened_mouth_is_dark_inside_and_its_lips_keep_their_height(
    retouch: Effect, portrait: Portrait, cut: Cut
) -> None:
    face = cut(retouch, portrait, {"mouth_open": 1.0})
    output = retouch.render(face)
    result, corner = _luma(_result(face, output)), np.array([face.region.x0, face.region.y0])
    inner, outer = (face.face.landmarks[v, :2] - corner for v in (14, 17))
    x, unit = int(inner[0]), float(np.linalg.norm(face.face.landmarks[33, :2] - face.face.landmarks[263, :2])) / 1.44
    column = result[int(inner[1]) : int(inner[1] + 0.3 * unit), x]
    assert float(column.min()) < 0.04
    assert output.warp is not None
    lip = float(outer[1] - inner[1])
    # the source of a full lip's height must still be there below the opening
    rows = torch.arange(output.warp.shape[1]) + output.warp[1, :, x]
    shown = ((rows > float(inner[1]) + 0.25 * lip) & (rows < float(outer[1]))).sum()
    assert float(shown) > 0.6 * lip


def test_tones_go_the_way_they_say(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    def gain(name: str, strength: float) -> tuple[FaceInput, Tensor]:
        face = cut(retouch, portrait, {name: strength})
        output = retouch.render(face)
        assert output.warp is None
        assert output.gain is not None
        return face, output.gain

    for strength in (0.8, -0.8):
        way = 1 if strength > 0 else -1
        face, lips = gain("lip_color", strength)
        inside = face.mattes["lips"] > 0.8
        assert way * float((lips[0] - lips[1])[inside].mean()) > 0.03
        face, eyes = gain("eye_brightness", strength)
        assert way * float(eyes[:, face.mattes["eyes"] > 0.8].mean() - 1) > 0.1
        face, cheeks = gain("cheek_color", strength)
        red = _at(face, cheeks, 205)
        assert way * float(red[0] - red[1]) > 0.02


def test_age_and_smoothing_work_on_the_texture_of_the_skin(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    def roughness(name: str, strength: float) -> float:
        face = cut(retouch, portrait, {name: strength})
        scene = _result(face, retouch.render(face)) if strength else face.scene
        log = (_luma(scene).clamp_min(0) + 0.01).log()[None]
        fine = log - torch.nn.functional.avg_pool2d(log, 7, 1, 3)
        return float(fine[0, face.mattes["skin"] > 0.95].std())

    plain = roughness("age", 0.0)
    assert roughness("age", 1.0) > 1.2 * plain > plain > roughness("age", -1.0)
    assert roughness("skin_smoothing", -1.0) > 1.1 * plain > plain > 1.1 * roughness("skin_smoothing", 1.0)


def test_tints_are_used(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    face = cut(retouch, portrait, {"lip_color": 1.0}, lip_tint=(0.2, 0.2, 0.9))
    gain = retouch.render(face).gain
    assert gain is not None
    inside = face.mattes["lips"] > 0.8
    assert float(gain[2, inside].mean()) > 1.2 * float(gain[0, inside].mean())


def test_colour_travels_with_the_lips(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    still = retouch.render(cut(retouch, portrait, {"lip_color": 1.0})).gain
    face = cut(retouch, portrait, [("lip_color", 1.0), ("smile", 1.0)])
    output = retouch.render(face)
    assert still is not None
    assert output.gain is not None
    assert output.warp is not None
    carried = warp_picture(still, output.warp)
    assert (carried - output.gain).abs().mean() < 0.3 * (still - output.gain).abs().mean()


def test_the_same_input_gives_the_same_bits(retouch: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(retouch, small, [("smile", 0.7), ("mouth_open", 0.4), ("age", -0.5)])
    first = retouch.render(face)
    retouch.render(cut(retouch, small, {"jaw": 1.0}))
    again = retouch.render(face)
    for a, b in ((first.matte, again.matte), (first.warp, again.warp), (first.gain, again.gain)):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


def test_a_wrong_shape_or_name_is_refused(retouch: Effect, small: Portrait, cut: Cut) -> None:
    face = cut(retouch, small, {"smile": 0.5})
    with pytest.raises(EffectError, match=r"scene is \[3, 9, 9\]"):
        retouch.render(replace(face, scene=torch.zeros(3, 9, 9)))
    with pytest.raises(EffectError, match="smile"):
        retouch.render(replace(face, edits=(("smil", 0.5),)))


def test_a_warp_has_the_same_size_on_the_face_at_any_resolution(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    edits = [("smile", 1.0), ("mouth_open", 0.5), ("eye_openness", -0.5)]
    plain = retouch.render(cut(retouch, portrait, edits)).warp
    large = retouch.render(cut(retouch, portrait.resized(2.0, 2.0), edits)).warp
    wide = retouch.render(cut(retouch, portrait.resized(0.5, 1.0, pixel_aspect=2.0), edits)).warp
    assert plain is not None
    assert large is not None
    assert wide is not None
    size = plain.shape[-2:]
    reduced = torch.nn.functional.interpolate(large[None], size=size, mode="area")[0] / 2
    assert (reduced - plain).abs().mean() < 0.1 * plain.abs().mean()
    stretched = torch.nn.functional.interpolate(wide[None], size=size, mode="bilinear")[0]
    stretched = stretched * torch.tensor([2.0, 1.0])[:, None, None]
    assert (stretched - plain).abs().mean() < 0.25 * plain.abs().mean()


def test_the_edit_moves_with_the_face(retouch: Effect, portrait: Portrait, cut: Cut) -> None:
    """Steadiness: a face moved by parts of a pixel is edited alike."""
    edits = [("smile", 0.8), ("age", -0.6), ("eye_openness", -0.5)]
    face = cut(retouch, portrait, edits)
    still = _result(face, retouch.render(face)).permute(1, 2, 0).numpy()
    source = face.scene.permute(1, 2, 0).numpy()
    dx, dy = 0.37, -0.22
    moved = cut(retouch, portrait.shifted(dx, dy), edits, region=face.region)
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float32)

    def undone(scene: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        array = scene.permute(1, 2, 0).numpy()
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(array, matrix, array.shape[1::-1], flags=flags), np.float32)

    inner = (slice(4, -4), slice(4, -4))
    resampling = np.abs(undone(moved.scene) - source)[inner].mean()
    drift = np.abs(undone(_result(moved, retouch.render(moved))) - still)[inner].mean()
    effect = np.abs(still - source)[inner].mean()
    assert drift < resampling + 0.15 * effect
