"""An artist's painted frame: read from any paint program's file and brought to what the plate is seen in.

Decided here, and told for every frame (`Painted.notes`):

- framing: the plate's display window. A picture of the same shape and another size is resampled; of another shape it
  is refused, except one of exactly the plate's data window, which lies there.
- colour: EXR, float and log pictures, and those of the plate's own format, are in the plate's colourspace; PNG, JPEG
  and integer TIFF are display sRGB. `--painted-colorspace` names another. Where the other reading explains the
  untouched parts of the picture and this one does not, that is an error, not a guess.
  Highlights of the plate that display sRGB cannot hold are not painted.
- alpha: pixels whose alpha is 0 are not painted. Premultiplied colour is divided.
- what is the plate already teaches nothing: a picture without any paint is refused.
- it has to lie on the plate (`lineup`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference_server.keyframes.lineup import LEAST_AGREEMENT, MOST, NOTICED, Lineup, line_up
from inference_server.plates.color import srgb_decode, to_picture
from inference_server.plates.composite import fill_non_finite, straighten
from inference_server.plates.images import source_format
from inference_server.plates.layers import choose
from inference_server.plates.reader import read_plate
from inference_server.plates.sequence import find_sequence, format_frames
from inference_server.plates.types import PlateFrame, Window
from inference_server.source import PlateSource, is_associated
from inference_server.training.errors import TrainingError

DISPLAY, PLATE = "display", "plate"  # names that --painted-colorspace takes beside OCIO's
SAME = 3 / 255  # of display-encoded values: pixels nearer than that to the plate are not painted
_LEAST_PAINTED = 0.002  # of the picture
_UNTOUCHED = 0.1  # of the picture: so much of it like the plate shows the colourspace that a file is in
_ASPECT = 0.004


@dataclass(frozen=True)
class Painted:
    """A painted frame over the plate's data window.

    picture  [H, W, 3] display-encoded sRGB 0..1 after the shot's work exposure
    covers   [H, W] bool, where there is paint to learn from (inside the file, alpha above 0)
    notes    what was converted, in words
    """

    frame: int
    path: str
    picture: NDArray[np.float32]
    covers: NDArray[np.bool_]
    lineup: Lineup
    notes: tuple[str, ...]


def painted_files(pattern: str, frames: tuple[int, ...], shot: tuple[int, ...], view: str = "") -> dict[int, str]:
    """Frame -> file. `frames` empty: all that are on disk.

    Raises PlateError `plate.no_frames`, TrainingError `training.data` for frames that are not painted or not of the
    shot.
    """
    found = find_sequence(pattern, view)
    if not found.pattern.is_sequence and len(frames) == 1:
        return _of_shot({frames[0]: next(iter(found.files.values()))}, shot)
    missing = [frame for frame in frames if frame not in found.files]
    if missing:
        raise TrainingError(
            "training.data",
            f"painted frame {format_frames(missing)} is not on disk: {found.pattern.path(missing[0])}",
            remedy=f"On disk are {format_frames(found.frames)}; name those with --frames-painted, or paint it.",
            value=missing,
        )
    return _of_shot({frame: found.files[frame] for frame in frames or found.frames}, shot)


def _of_shot(files: dict[int, str], shot: tuple[int, ...]) -> dict[int, str]:
    outside = [frame for frame in files if frame not in shot]
    if outside:
        raise TrainingError(
            "training.data",
            f"painted frame {format_frames(outside)} is not a frame of the shot, which has {format_frames(shot)}",
            remedy="Name the frames that were painted (--frames-painted), by the plate's numbers.",
            value=outside,
        )
    return files


def read_painted(
    path: str, plate: PlateFrame, source: PlateSource, exposure: float, colorspace: str = "", trust: bool = False
) -> Painted:
    """Read and check the painted frame of `plate`.

    colorspace  an OCIO name, `display`, `plate`, or "" for the rule of this module
    trust       take it even where it seems not to lie on the plate

    Raises PlateError, ColorError, TrainingError `training.data`.
    """
    file = read_plate(path, plate.frame)
    notes: list[str] = []
    space = colorspace or _usual_space(file, plate)
    scene, covers = _scene(file, source, space)
    seen = plate.parts[source.layer(plate).part].seen
    scene, covers = _framed(scene, covers, file, plate, source, notes)
    picture = to_picture(torch.from_numpy(np.ascontiguousarray(scene)), exposure).numpy()
    if space == DISPLAY:
        covers = covers & ~_burnt(scene, source.straight(plate).scene, notes)
    shown = source.picture(plate, exposure)
    changed = np.abs(picture - shown).max(axis=-1) > SAME
    notes.insert(0, f"read as {_space_in_words(space, source)}")
    if not colorspace:
        _check_space(path, file, plate, source, exposure, space, changed, covers)
    if (changed & covers).sum() < _LEAST_PAINTED * changed.size:
        raise _unusable(
            plate.frame,
            path,
            "is the plate: nothing is painted on it",
            "Paint it, or leave the frame out of --frames-painted.",
        )
    where = _checked(plate.frame, path, line_up(shown, np.where(covers[..., None], picture, shown)), trust, notes)
    assert picture.shape[:2] == (seen.height, seen.width)
    return Painted(plate.frame, path, picture, covers, where, tuple(notes))


# --- colour ---------------------------------------------------------------------------------------------------------


def _usual_space(file: PlateFrame, plate: PlateFrame) -> str:
    kind = source_format(file)  # "" for EXR, else "png uint8"
    display = kind.startswith(("png", "jpeg")) or (kind.startswith("tiff") and "uint" in kind)
    if display and source_format(plate).partition(" ")[0] == kind.partition(" ")[0]:
        return PLATE
    return DISPLAY if display else PLATE


def _space_in_words(space: str, source: PlateSource) -> str:
    return {DISPLAY: "display sRGB", PLATE: f"the plate's colourspace, {source.color.space}"}.get(space, space)


def _scene(file: PlateFrame, source: PlateSource, space: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Scene-linear [h, w, 3] of the file's own pixels and where they are painted [h, w]."""
    layer = choose(file, "", "", "")
    part = file.parts[layer.part]
    rgb = np.stack([part.channels[n].astype(np.float32) for n in (layer.red, layer.green, layer.blue)], axis=-1)
    alpha = part.channels[layer.alpha].astype(np.float32) if layer.alpha else None
    if space != DISPLAY:
        color = source.color if space == PLATE else source.config.transform(space)
        ready = straighten(rgb, alpha, "auto", is_associated(file), color)
        return ready.scene, ready.valid
    covers = np.ones(rgb.shape[:2], np.bool_) if alpha is None else alpha > 0
    rgb = fill_non_finite(rgb)
    if alpha is not None and is_associated(file):
        rgb = rgb / np.where(covers, alpha, np.float32(1))[..., None]
    return srgb_decode(torch.from_numpy(np.ascontiguousarray(rgb)).clamp(0, 1)).numpy(), covers


def _check_space(
    path: str,
    file: PlateFrame,
    plate: PlateFrame,
    source: PlateSource,
    exposure: float,
    space: str,
    changed: NDArray[np.bool_],
    covers: NDArray[np.bool_],
) -> None:
    """Refuse a file whose unpainted parts are the plate's only when it is read in the other way."""
    other = PLATE if space == DISPLAY else DISPLAY
    if (~changed & covers).sum() > _UNTOUCHED * changed.size / 4:
        return
    scene, valid = _scene(file, source, other)
    scene, valid = _framed(scene, valid, file, plate, source, [])
    again = to_picture(torch.from_numpy(np.ascontiguousarray(scene)), exposure).numpy()
    like = (np.abs(again - source.picture(plate, exposure)).max(axis=-1) <= SAME) & valid
    if like.sum() > _UNTOUCHED * like.size:
        raise _unusable(
            plate.frame,
            path,
            f"was read as {_space_in_words(space, source)}, but its untouched parts are the plate's when it is read as "
            f"{_space_in_words(other, source)}",
            f"Say --painted-colorspace {other} (or {space}, to read it so all the same).",
        )


def _burnt(paint: NDArray[np.float32], plate: NDArray[np.float32], notes: list[str]) -> NDArray[np.bool_]:
    """Where the plate is brighter than a display picture can say, [H, W]: what it holds there is no paint."""
    burnt = np.asarray(((paint > 0.99) & (plate > 1)).any(axis=-1))
    if burnt.mean() > 0.002:
        notes.append(f"highlights above 1 are left out, which display sRGB cannot hold ({100 * burnt.mean():.1f} %)")
    return burnt


# --- framing --------------------------------------------------------------------------------------------------------


def _framed(
    scene: NDArray[np.float32],
    covers: NDArray[np.bool_],
    file: PlateFrame,
    plate: PlateFrame,
    source: PlateSource,
    notes: list[str],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The picture over the plate's data window; what lies outside the file is not covered."""
    mine, its = file.parts[choose(file, "", "", "").part], plate.parts[source.layer(plate).part]
    display, wanted, seen = mine.display_window, its.display_window, mine.seen
    size, target = (display.width, display.height), (wanted.width, wanted.height)
    if size != target and size == (its.data_window.width, its.data_window.height):
        notes.append("lies on the plate's data window, which it has the size of")
        return scene, covers
    if size != target:
        sx, sy = target[0] / size[0], target[1] / size[1]
        if abs(sx / sy - 1) > _ASPECT:
            raise _unusable(
                plate.frame,
                file.path,
                f"is {size[0]}x{size[1]}, the plate {target[0]}x{target[1]}: not the same framing",
                "Save it in the plate's format, neither cropped nor padded.",
            )
        notes.append(f"resampled from {size[0]}x{size[1]} to the plate's {target[0]}x{target[1]}")
        seen = Window(round(seen.x0 * sx), round(seen.y0 * sy), round(seen.x1 * sx), round(seen.y1 * sy))
        kind = cv2.INTER_AREA if sx < 1 else cv2.INTER_CUBIC
        scene = np.asarray(cv2.resize(scene, (seen.width, seen.height), interpolation=kind), np.float32)
        small = cv2.resize(covers.astype(np.uint8), (seen.width, seen.height), interpolation=cv2.INTER_NEAREST)
        covers = small.astype(np.bool_)
    area = its.seen
    inner = seen.intersect(area)
    if seen == area:
        return scene, covers
    out = np.zeros((area.height, area.width, 3), np.float32)
    there = np.zeros((area.height, area.width), np.bool_)
    if not inner.empty:
        to = (slice(inner.y0 - area.y0, inner.y1 - area.y0), slice(inner.x0 - area.x0, inner.x1 - area.x0))
        of = (slice(inner.y0 - seen.y0, inner.y1 - seen.y0), slice(inner.x0 - seen.x0, inner.x1 - seen.x0))
        out[to], there[to] = scene[of], covers[of]
    return out, there


# --- lying on the plate -----------------------------------------------------------------------------------------------


def _checked(frame: int, path: str, where: Lineup, trust: bool, notes: list[str]) -> Lineup:
    """The lineup, with a note where it is doubtful; TrainingError where it is not to be used."""
    lost = where.agreement < LEAST_AGREEMENT
    if (lost or where.off > MOST) and not trust:
        what = f"does not line up with the plate: it is {where}"
        if lost:
            what = (
                f"has too few edges in common with the plate to say that it lines up (agreement {where.agreement:.2f}, "
                f"at best {where})"
            )
        raise _unusable(
            frame,
            path,
            what,
            "Move it back onto the plate, check that it is this frame, or say --trust-lineup if it is right as it is.",
        )
    if lost or where.off > NOTICED:
        notes.append(f"not quite on the plate: {where} (agreement {where.agreement:.2f})")
    return where


def _unusable(frame: int, path: str, what: str, remedy: str) -> TrainingError:
    return TrainingError("training.data", f"painted frame {frame} {what} [{path}]", remedy=remedy, value=frame)
