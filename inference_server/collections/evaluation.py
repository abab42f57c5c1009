"""Decides whether a trained two-stage translator is any good, on clips that no step of its training saw.

It is measured against its teacher within the head that would be composited. It is accepted where, in every style and
over all kept-out clips, it comes nearer to the teacher (PSNR) than both answers that need no training, the untouched
frame and the teacher's first picture carried along by flow, and where what comes out of the refiner changes less along
the source's motion than the teacher's own pictures do. Everything else is told, not judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.detect import Search
from inference_server.faces.flow import warp
from inference_server.faces.types import LANDMARKS
from inference_server.metrics import flow_warp_error, gaze_drift, landmark_drift, mse, psnr_of_mse, temporal_profile
from inference_server.metrics.motion import dis, profile_sheet
from inference_server.networks.two_stage import Memory, Refiner, Translator, folded, refine
from inference_server.training.clip_cache import ClipCache

Frames = NDArray[np.float32]  # [T, H, W, 3] in 0..1
NAMES = ("source", "carried", "translator", "refined", "teacher")
SHOWN = ("source", "teacher", "translator", "refined")


@dataclass(frozen=True)
class Measured:
    """One sequence of one clip in one style, within the head.

    psnr       against the teacher, dB, over all frames but the first; inf for the teacher itself
    flicker    mean squared change along the source's motion, pictures in 0..1, in millionths
    landmarks  drift against the source, hundredths of the eye distance; gaze: hundredths of an eye's width; nan where
               unknown, and for what is carried along
    """

    psnr: float
    flicker: float
    landmarks: float
    gaze: float


@dataclass(frozen=True)
class Row:
    """A clip in a style; `of` by the names in NAMES."""

    clip: str
    style: str
    of: Mapping[str, Measured]


@dataclass(frozen=True)
class Report:
    """`missing`: what keeps it from being accepted, in words; empty where it is accepted."""

    rows: tuple[Row, ...]
    missing: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return not self.missing

    def table(self) -> dict[str, Any]:
        """As plain tables, for a file."""
        rows = [{"clip": r.clip, "style": r.style, **{n: asdict(m) for n, m in r.of.items()}} for r in self.rows]
        return {"accepted": self.accepted, "missing": list(self.missing), "rows": rows}

    def lines(self) -> list[str]:
        """For people."""
        out = [f"{'clip':24} {'style':10} {'':10} {'PSNR dB':>8} {'flicker':>8} {'landmarks':>9} {'gaze':>6}"]
        for row in self.rows:
            for name, m in row.of.items():
                numbers = f"{m.psnr:8.2f} {m.flicker:8.1f} {m.landmarks:9.2f} {m.gaze:6.2f}"
                out.append(f"{row.clip:24.24} {row.style:10.10} {name:10} {numbers}")
        return [*out, "accepted" if self.accepted else f"not accepted: {'; '.join(self.missing)}"]


@dataclass(frozen=True)
class Sequences:
    """The sequences of one clip in one style, by the names in NAMES, and the head [T, H, W]."""

    clip: str
    style: str
    frames: Mapping[str, Frames]
    head: NDArray[np.float32]


def evaluate(sequences: Sequence[Sequences], tools: FaceTools | None) -> Report:
    """Measures; without `tools` landmarks and gaze stay unknown (nan). ValueError without sequences."""
    rows = tuple(measure(one, tools) for one in sequences)
    return Report(rows, tuple(missing(rows)))


def missing(rows: Sequence[Row]) -> list[str]:
    """What a model lacks, style by style, from the means over its clips."""
    if not rows:
        raise ValueError("nothing was measured")
    out = []
    for style in dict.fromkeys(row.style for row in rows):
        mine = [row for row in rows if row.style == style]

        def mean(name: str, what: str, mine: list[Row] = mine) -> float:
            return float(np.mean([getattr(row.of[name], what) for row in mine]))

        for name, words in (
            ("source", "the untouched frame"),
            ("carried", "the teacher's first picture carried along"),
        ):
            if not mean("refined", "psnr") > mean(name, "psnr"):
                ours, theirs = mean("refined", "psnr"), mean(name, "psnr")
                out.append(f"{style}: {ours:.2f} dB to the teacher, {words} has {theirs:.2f} dB")
        if not mean("refined", "flicker") < mean("teacher", "flicker"):
            ours, theirs = mean("refined", "flicker"), mean("teacher", "flicker")
            out.append(f"{style}: it changes by {ours:.1f} along the motion, the teacher by {theirs:.1f}")
    return out


def measure(one: Sequences, tools: FaceTools | None) -> Row:
    """Every sequence of one clip in one style."""
    source, teacher = one.frames["source"], one.frames["teacher"]
    before = None if tools is None else meshes(source, tools)
    of = {}
    for name in NAMES:
        frames = one.frames[name]
        error = float(mse(frames[1:], teacher[1:], one.head[1:]).mean())
        landmarks = gaze = float("nan")
        if before is not None and tools is not None and name != "carried":  # it does not follow expressions at all
            after = before if name == "source" else meshes(composited(frames, source, one.head), tools)
            landmarks, gaze = _known(landmark_drift(before, after)), _known(gaze_drift(before, after))
        flicker = 1e6 * flow_warp_error(frames, source, mask=one.head).mean
        of[name] = Measured(float(psnr_of_mse(error)), flicker, landmarks, gaze)
    return Row(one.clip, one.style, of)


def composited(frames: Frames, source: Frames, head: NDArray[np.float32]) -> Frames:
    """The pictures in the head, the source around it."""
    return np.asarray(source + head[..., None] * (frames - source), np.float32)


def meshes(frames: Frames, tools: FaceTools) -> NDArray[np.float32]:
    """The landmarks of each frame's first face on its own, [T, 478, 3]; nan where none is found."""
    out = np.full((len(frames), LANDMARKS, 3), np.nan, np.float32)
    for t, frame in enumerate(frames):
        faces = faces_of_picture(frame, FaceTools(tools.detector, tools.landmarker, None), search=Search.WHOLE)
        if faces:
            out[t] = faces[0].square()
    return out


def _known(values: NDArray[np.floating[Any]]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


@torch.no_grad()
def sequences_of(cache: ClipCache, translator: Translator, refiner: Refiner) -> list[Sequences]:
    """Every window of a cache in every style, translated and refined as at inference: from its first frame on."""
    translator, refiner = folded(translator), folded(refiner)
    out = []
    for clip, (first, count) in zip(cache.clips, cache.windows, strict=True):
        numbers = range(first, first + count)
        source = np.stack([_unit(cache.picture(i, 0)) for i in numbers])
        head = np.stack([cache.motion(i)[2][0].numpy() for i in numbers])
        for k, style in enumerate(cache.styles):
            teacher = np.stack([_unit(cache.picture(i, 1 + k)) for i in numbers])
            translated, refined = [], []
            memory: Memory | None = None
            for i in numbers:
                frame = cache.tensor(i, 0)[None]
                drawn = translator(frame, cache.style(k)[None])
                steady, memory = refine(refiner, frame, drawn, memory)
                translated.append(_picture(drawn))
                refined.append(_picture(steady))
            frames = (source, carried(teacher[0], source), np.stack(translated), np.stack(refined), teacher)
            out.append(Sequences(clip, style, dict(zip(NAMES, frames, strict=True)), head))
    return out


def carried(first: NDArray[np.float32], source: Frames) -> Frames:
    """A first picture carried along by the source's flow: the flows are joined, so that it is resampled only once."""
    flow = dis()
    out, whole = [first], np.zeros((*first.shape[:2], 2), np.float32)
    for t in range(1, len(source)):
        back = flow(source[t], source[t - 1])
        # Beyond the border there is nothing to join; the place is held.
        inside = warp(np.ones((*first.shape[:2], 1), np.float32), back) > 0.999
        whole = back + np.where(inside, warp(whole, back), 0)
        grid = np.stack(np.meshgrid(np.arange(first.shape[1]), np.arange(first.shape[0])), axis=-1).astype(np.float32)
        moved = cv2.remap(first, whole + grid, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
        out.append(np.asarray(moved, np.float32))
    return np.stack(out)


def _unit(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    return picture.astype(np.float32) / np.float32(255)


def _picture(drawn: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(((drawn[0].float() + 1) / 2).clamp(0, 1).permute(1, 2, 0).cpu().numpy(), np.float32)


# ------------------------------------------------------------------------------------------------- to look at


def save_pictures(sequences: Sequence[Sequences], folder: Path) -> None:
    """comparison.jpg, frames over time of every clip and style, and profiles.png, a scan line over time."""
    _write(folder / "comparison.jpg", comparison(sequences))
    _write(folder / "profiles.png", profiles(sequences))


def comparison(sequences: Sequence[Sequences], columns: int = 4, side: int = 192) -> NDArray[np.uint8]:
    """[H, W, 3] RGB: clips and styles side by side, each with source, teacher, translator and refined in columns and
    frames over time in rows, composited.
    """
    blocks = []
    for one in sequences:
        at = np.linspace(0, len(one.head) - 1, columns).round().astype(int)
        source, head = one.frames["source"][at], one.head[at]
        shown = [composited(one.frames[name][at], source, head) for name in SHOWN]
        blocks.append(np.concatenate([np.concatenate(list(frames)) for frames in shown], axis=1))
    sheet = np.concatenate(blocks, axis=1)
    scale = side / sequences[0].head.shape[1]
    small = cv2.resize(sheet, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(small.clip(0, 1) * 255), np.uint8)


def profiles(sequences: Sequence[Sequences]) -> NDArray[np.uint8]:
    """The scan line under the eyes over time, labelled, clips and styles below each other."""
    sheets = []
    for one in sequences:
        row = round(0.55 * one.head.shape[1])
        lines = {f"{one.clip} {one.style} {name}": temporal_profile(one.frames[name], row=row) for name in SHOWN}
        sheets.append(profile_sheet(lines, vertical=False, least=96))
    return np.concatenate(sheets)


def _write(path: Path, picture: NDArray[np.uint8]) -> None:
    done, data = cv2.imencode(path.suffix, np.ascontiguousarray(picture[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not done:
        raise OSError(f"OpenCV could not encode {path.name}")
    path.write_bytes(bytes(data))
