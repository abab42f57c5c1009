"""Finished frames on disk: encoded, written atomically, decoded again and compared before they get their name.

A frame that could not be read back sample for sample is an error, not a file. A plate that nothing was done to is
not encoded at all: `copy_plate` writes the file's own bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from host_bridge.errors import FaceplateError, PlateError
from inference_server.plates.atomic import Pending, replacing
from inference_server.plates.attributes import decode
from inference_server.plates.exr import PlateWarning, decode_exr, encode_exr
from inference_server.plates.images import EXTENSIONS, format_of, read_image, write_image
from inference_server.plates.provenance import PREFIX, read_provenance
from inference_server.plates.reader import read_bytes, read_plate
from inference_server.plates.sequence import InputFiles
from inference_server.plates.types import Attribute, ChosenLayer, Part, PlateFrame, Samples

MATTE_PREFIX = "faceplate."


@dataclass(frozen=True)
class WriteResult:
    """A file in place: its path, its size in bytes, and what the artist should know about it."""

    path: str
    size: int
    warnings: tuple[PlateWarning, ...] = ()


def write_plate(
    frame: PlateFrame,
    path: str,
    *,
    compression: str = "",
    may_write: Callable[[], bool] = lambda: True,
    extra_attributes: Mapping[str, Attribute] | None = None,
) -> WriteResult:
    """Write a frame; its format is the path's extension (EXR, or the plate's own DPX, TIFF, PNG).

    `compression` as in `encode_exr`. `extra_attributes` go into every part (see `Provenance.attributes`). Raises
    JobError `job.output_is_input` or `job.lease_lost`; PlateError `plate.format`, `plate.disk_full`,
    `plate.permission`, `plate.write_failed`. Whatever is raised, nothing new is left on disk.
    """
    InputFiles([frame.path] if frame.path else []).refuse(path, frame.frame)
    extra = extra_attributes or {}
    try:
        if format_of(path) != "exr":
            return _write_image(frame, path, extra, may_write)
        encoded = encode_exr(frame, compression=compression, extra_attributes=extra)
        with replacing(path, frame=frame.frame, may_write=may_write) as pending:
            pending.write(encoded.data)
            _check_bytes(pending, encoded.data)
            written = decode_exr(bytearray(encoded.data), frame=frame.frame, path=path)
            _check_samples(frame, written, exact=encoded.exact)
        return WriteResult(path, len(encoded.data), encoded.warnings)
    except FaceplateError as error:
        raise error.at(frame=frame.frame, path=path) from error.__cause__


def _write_image(
    frame: PlateFrame, path: str, extra: Mapping[str, Attribute], may_write: Callable[[], bool]
) -> WriteResult:
    texts = {k[len(PREFIX) :]: str(decode(v)) for k, v in extra.items() if k.startswith(PREFIX)}
    with replacing(path, frame=frame.frame, may_write=may_write) as pending:
        warnings = write_image(frame, path, pending.path, texts)
        written = read_image(pending.path, frame.frame, format_of(path))
        exact = not any(warning.code == "plate.clipped" for warning in warnings)
        _check_samples(_requantised(frame, written), written, exact=exact)
        size = os.stat(pending.path).st_size
    return WriteResult(path, size, tuple(warnings))


def _requantised(frame: PlateFrame, like: PlateFrame) -> PlateFrame:
    """What `frame` becomes in an integer file: within half a step of `like`, then `like` itself."""
    part, stored = frame.parts[0], like.parts[0]
    step = 1 / 255 if b"uint8" in stored.header["faceplate:sourceFormat"].data else 1 / 1023
    channels = {}
    for (name, samples), kept in zip(part.channels.items(), stored.channels.values(), strict=True):
        near = np.isfinite(samples) & (np.abs(samples - kept) <= step / 2 + 1e-6)
        channels[name] = np.where(near, kept, samples)
    return replace(frame, parts=(replace(part, channels=channels),))


def _check_bytes(pending: Pending, data: bytearray) -> None:
    if pending.read_back() != data:
        raise PlateError(
            "plate.write_failed",
            "the file reads back differently from what was written",
            remedy="Check the output disk.",
        )


def _check_samples(frame: PlateFrame, written: PlateFrame, *, exact: bool) -> None:
    """See that every part and channel is in the written file, and the same bits where the codec promises that."""
    for part, found in zip(frame.parts, written.parts, strict=True):
        same = sorted(part.channels) == sorted(found.channels) or len(part.channels) == len(found.channels)
        if exact and same:
            pairs = zip(_by_name(part), _by_name(found), strict=True)
            same = all(np.array_equal(_bits(a), _bits(b)) for a, b in pairs)
        if not same:
            raise PlateError(
                "plate.write_failed",
                f"part {part.name or 0!r} does not decode to what was written",
                value=part.name,
                remedy="Write with another compression (--compression zip) and report this.",
            )


def _by_name(part: Part) -> list[Samples]:
    return [part.channels[name] for name in sorted(part.channels)]


def _bits(samples: Samples) -> Samples:
    return np.ascontiguousarray(samples).view(np.uint16 if samples.dtype.itemsize == 2 else np.uint32)


def copy_plate(
    source: str, path: str, *, frame: int | None = None, may_write: Callable[[], bool] = lambda: True
) -> WriteResult:
    """Put a copy of the file `source` at `path`, byte for byte, atomically: what strength 0 is.

    Nothing is added, provenance neither: it is the plate. Raises as `write_plate`, and as `read_plate` for a source
    that is not there, empty or not readable; PlateError `plate.format` where the extensions name different formats.
    """
    InputFiles([source]).refuse(path, frame)
    if format_of(source) != format_of(path):
        raise PlateError(
            "plate.format",
            f"a copy of a {format_of(source)} file cannot be called {os.path.basename(path)}",
            value=path,
            frame=frame,
            path=path,
            remedy="Keep the extension, or write the decoded plate instead.",
        )
    try:
        data = read_bytes(source)
    except FaceplateError as error:
        raise error.at(frame=frame) from error.__cause__
    with replacing(path, frame=frame, may_write=may_write) as pending:
        pending.write(data)
        if pending.read_back() != data:
            raise PlateError(
                "plate.write_failed",
                "the copy reads back differently",
                frame=frame,
                path=path,
                remedy="Check the output disk.",
            )
    return WriteResult(path, len(data))


def can_copy(source: str, path: str, compression: str = "") -> bool:
    """Whether an untouched frame may be a copy of its file: the same format, and no other compression asked for."""
    extension = os.path.splitext(path)[1].lower()
    return compression in ("", "keep") and (extension == ".exr" or extension in EXTENSIONS) and (
        format_of(source) == format_of(path)
    )  # fmt: skip


def is_finished(path: str, job: str, source: str = "") -> bool:
    """Whether `path` is this job's own finished frame: it decodes and carries the job's hash.

    `source` is the plate's file where the job's frame is a copy of it; then the bytes must be the same.
    """
    try:
        if source:
            return read_bytes(path) == read_bytes(source)
        made = read_provenance(path)
        if made is None or made.job != job:
            return False
        read_plate(path)
    except PlateError:
        return False
    return True


def with_mattes(frame: PlateFrame, layer: ChosenLayer, mattes: Mapping[str, Samples]) -> PlateFrame:
    """Add mattes (name -> [H, W] of the layer's part, 0..1) as half channels `faceplate.NAME` of that part."""
    part = frame.parts[layer.part]
    added = {MATTE_PREFIX + name: matte.astype(np.float16) for name, matte in mattes.items()}
    parts = list(frame.parts)
    parts[layer.part] = replace(part, channels={**part.channels, **added})
    return replace(frame, parts=tuple(parts))


def matte_frame(frame: PlateFrame, layer: ChosenLayer, mattes: Mapping[str, Samples]) -> PlateFrame:
    """A frame of mattes only: half channels `faceplate.NAME`, and the first one again as `A`, which viewers show.

    Windows, pixel aspect, timecode and the other metadata are those of the layer's part, the compression ZIP.
    """
    part = frame.parts[layer.part]
    stored = {MATTE_PREFIX + name: matte.astype(np.float16) for name, matte in mattes.items()}
    if not stored:
        raise PlateError("plate.format", "there are no mattes to write", remedy="Name at least one matte.")
    header = {k: v for k, v in part.header.items() if k not in ("compression", "channels", "tiles", "type")}
    channels = {"A": next(iter(stored.values())), **stored}
    return PlateFrame(frame.frame, frame.path, (replace(part, name="", channels=channels, header=header),))
