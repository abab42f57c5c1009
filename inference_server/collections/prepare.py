"""Decides how a folder of pictures becomes training data: each face laid into the FFHQ square, by our own detector.

Every file of the folder is accounted for: what was made of it, or why nothing was. A picture without a face that the
detector finds (many drawings) is left to the artist, who can align it by hand and hand it in as aligned.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import FaceError, PlateError
from inference_server.faces.align import apply_ffhq, landmarks68, plan_ffhq
from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.detect import MediaPipeDetector
from inference_server.faces.landmarks import MediaPipeLandmarker
from inference_server.faces.types import FaceFrame
from inference_server.training.files import write_atomic, write_text

REPORT = "prepared.json"
LEAST_SHARE = 0.5  # of the size: a smaller face is enlarged so much that it is soft, and said to be

Picture = NDArray[np.uint8]  # [H, W, 3] RGB display-encoded sRGB


@dataclass(frozen=True)
class Prepared:
    """What became of a file: the name of the picture made of it, or "" and the reason. `note` is worth knowing."""

    folder: str
    source: str
    result: str
    faces: int
    note: str = ""

    @property
    def used(self) -> bool:
        return bool(self.result)


def prepare_pictures(
    source: Path, out: Path, size: int = 1024, *, aligned: bool = False, tools: FaceTools | None = None
) -> Generator[Prepared, None, list[Prepared]]:
    """Makes `out`/<name>.png of every picture in `source`: yields what became of each file, returns all of it.

    The largest face counts. `aligned`: pictures are squares already and only brought to `size`. `out` also gets
    prepared.json, the same list; it and the pictures may be of several folders. Raises PlateError `plate.no_frames`
    where the folder is missing or holds no file, FaceError `face.none` at the end where not one picture could be used,
    and `face.detector`.
    """
    files = sorted(p for p in source.iterdir() if p.is_file() and not p.name.startswith(".")) if source.is_dir() else []
    if not files:
        what = "holds no file" if source.is_dir() else "is not a folder"
        raise PlateError("plate.no_frames", f"{source} {what}", path=str(source), remedy="Name a folder of pictures.")
    out.mkdir(parents=True, exist_ok=True)
    if tools is None and not aligned:
        tools = FaceTools(MediaPipeDetector(), MediaPipeLandmarker(), None)
    folder = str(source.resolve())
    before = [p for p in read_report(out) if p.folder != folder]
    done: list[Prepared] = []
    taken = {p.result: str(Path(p.folder) / p.source) for p in before if p.used}
    for path in files:
        name = f"{path.stem}.png"
        if name in taken:
            note = f"{name} is made of {taken[name]} already; give it another name"
            one = Prepared(folder, path.name, "", 0, note)
        else:
            one = _prepare(folder, path, out / name, size, None if aligned else tools)
        if one.used:
            taken[name] = path.name
        done.append(one)
        yield one
    report = {"size": size, "pictures": [asdict(p) for p in [*before, *done]]}
    write_text(out / REPORT, json.dumps(report, indent=1) + "\n")
    if not any(one.used for one in done):
        raise FaceError(
            "face.none",
            f"none of the {len(done)} files in {source} could be used; {out / REPORT} says why",
            path=str(source),
            remedy="Align drawings by hand, square, as FFHQ is, and say --aligned.",
        )
    return done


def _prepare(folder: str, path: Path, result: Path, size: int, tools: FaceTools | None) -> Prepared:
    picture = _read(path)
    if picture is None:
        return Prepared(folder, path.name, "", 0, "it cannot be read as a picture")
    height, width = picture.shape[:2]
    if tools is None:
        if width != height:
            return Prepared(folder, path.name, "", 0, f"it is {width}x{height} px; an aligned picture is square")
        _write(result, _resized(picture, size))
        return Prepared(folder, path.name, result.name, 0, _soft(width, size))
    faces = faces_of_picture(picture, tools)
    if not faces:
        return Prepared(folder, path.name, "", 0, "no face was found; align it by hand and say --aligned")
    largest = max(faces, key=_area)
    alignment = plan_ffhq(landmarks68(largest.square()), (height, width), size)
    _write(result, np.asarray(apply_ffhq(picture, alignment), dtype=np.uint8))
    several = f"{len(faces)} faces, the largest is taken" if len(faces) > 1 else ""
    notes = [several, _soft(alignment.qsize, size)]
    return Prepared(folder, path.name, result.name, len(faces), "; ".join(note for note in notes if note))


def _soft(side: float, size: int) -> str:
    return f"only {side:.0f} px wide, so it is soft at {size}" if side < LEAST_SHARE * size else ""


def _area(face: FaceFrame) -> float:
    x0, y0, x1, y1 = face.box
    return (x1 - x0) * (y1 - y0)


def _resized(picture: Picture, size: int) -> Picture:
    way = cv2.INTER_AREA if picture.shape[0] >= size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, (size, size), interpolation=way), dtype=np.uint8)


def _read(path: Path) -> Picture | None:
    """RGB as a viewer shows it, turned upright by its EXIF tag; transparent parts on white. None where it is none."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    if not data.size:
        return None
    colour: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if colour is None:
        return None
    stored: Any = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if stored is not None and stored.ndim == 3 and stored.shape[2] == 4:
        full = float(np.iinfo(stored.dtype).max) if np.issubdtype(stored.dtype, np.integer) else 1.0
        alpha = (stored[:, :, 3:].astype(np.float32) / full).clip(0, 1)
        colour = np.rint(colour * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(colour[:, :, ::-1])


def _write(path: Path, picture: Picture) -> None:
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture[:, :, ::-1]))
    if not done:
        raise OSError(f"OpenCV could not encode {path.name}")
    write_atomic(path, lambda temporary: _store(temporary, bytes(data)))


def _store(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def read_report(out: Path) -> list[Prepared]:
    """What earlier calls made of the files they were given; empty where there was none."""
    path = out / REPORT
    if not path.exists():
        return []
    return [Prepared(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["pictures"]]


def unused(pictures: Sequence[Prepared]) -> list[Prepared]:
    """Those of which nothing was made."""
    return [picture for picture in pictures if not picture.used]
