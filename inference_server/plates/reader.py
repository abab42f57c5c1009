"""Frames from files: one call that knows every format and turns every way of failing into a coded error.

An EXR file is read in one piece and decoded from memory: one sequential read is what network storage likes, a file
that another program cuts short meanwhile cannot crash the decoder, and the operating system's own error is what the
artist sees. The interpreter lock is free during the read and the decoding.
"""

from __future__ import annotations

import os
from fractions import Fraction

from host_bridge.errors import FaceplateError, PlateError
from inference_server.plates.attributes import Timecode, decode
from inference_server.plates.exr import decode_exr, is_exr, outline_exr
from inference_server.plates.images import format_of, outline_image, read_image
from inference_server.plates.sequence import PlannedFrame
from inference_server.plates.types import Attribute, Part, PlateFrame

_DEFAULT_RATE = Fraction(24)
_HEAD = 256 * 1024


def read_plate(path: str, frame: int = 1) -> PlateFrame:
    """Decode every part of one file: EXR, DPX, TIFF, PNG or JPEG. `frame` is the number it stands for.

    Samples are the file's own values, [H, W] of each part's data window. Raises PlateError with frame and path:
    `plate.missing_frame`, `plate.permission`, `plate.empty_file`, `plate.truncated`, `plate.unreadable`, `plate.deep`,
    `plate.subsampled`, `plate.format`.
    """
    try:
        kind = format_of(path)
        data = read_bytes(path)
        if kind == "exr" or is_exr(data):
            return decode_exr(data, frame=frame, path=path)
        del data
        return read_image(path, frame)
    except FaceplateError as error:
        raise error.at(frame=frame, path=path) from error.__cause__


def read_outline(path: str, frame: int = 1) -> PlateFrame:
    """A file's parts, channels, windows and attributes without any samples: every channel is [0, 0] of its type.

    Errors as `read_plate`, as far as they show without decoding.
    """
    try:
        kind = format_of(path)
        size = _HEAD
        while True:
            head = read_bytes(path, size)
            if kind != "exr" and not is_exr(head):
                return outline_image(path, frame)
            try:
                return outline_exr(head, frame=frame, path=path)
            except PlateError as error:
                # Some renderers put whole scripts into the header.
                if error.code != "plate.truncated" or len(head) < size:
                    raise
            size *= 8
    except FaceplateError as error:
        raise error.at(frame=frame, path=path) from error.__cause__


def read_planned(planned: PlannedFrame) -> PlateFrame:
    """Read a frame of a plan; a held one carries the time code it would have had, not its source's."""
    if planned.error is not None:
        raise planned.error
    frame = read_plate(planned.path, planned.frame)
    return retimed(frame, planned.frame - planned.source)


def retimed(frame: PlateFrame, by: int) -> PlateFrame:
    """The frame with every part's time code moved by `by` frames, at the file's `framesPerSecond` (24 if unsaid)."""
    if by == 0:
        return frame
    return PlateFrame(frame.frame, frame.path, tuple(_retimed(part, by) for part in frame.parts))


def _retimed(part: Part, by: int) -> Part:
    stored = part.header.get("timeCode")
    if stored is None or stored.type != "timecode" or len(stored.data) != 8:
        return part
    moved = Timecode.unpack(stored).advanced(by, _rate(part.header.get("framesPerSecond")))
    return Part(
        part.name,
        part.channels,
        part.data_window,
        part.display_window,
        part.pixel_aspect,
        {**part.header, "timeCode": moved.pack()},
    )


def _rate(attribute: Attribute | None) -> Fraction:
    if attribute is None:
        return _DEFAULT_RATE
    value = decode(attribute)
    if attribute.type == "rational" and value[1] > 0 and value[0] > 0:
        return Fraction(*value)
    if attribute.type in ("float", "int") and 0 < value < 1000:
        return Fraction(value).limit_denominator(1001)
    return _DEFAULT_RATE


def read_bytes(path: str, limit: int = -1) -> bytearray:
    """A whole file, or its first `limit` bytes.

    Raises PlateError `plate.missing_frame`, `plate.permission`, `plate.empty_file`, `plate.unreadable`.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            data = bytearray(size if limit < 0 else min(size, limit))
            view, filled = memoryview(data), 0
            while filled < len(data) and (got := file.readinto(view[filled:])):
                filled += got
            view.release()
            del data[filled:]
    except FileNotFoundError as error:
        raise PlateError(
            "plate.missing_frame", "the file does not exist", path=path, remedy="Render it, or check the path."
        ) from error
    except PermissionError as error:
        raise PlateError(
            "plate.permission",
            f"the file may not be read: {error.strerror}",
            value=error.errno,
            path=path,
            remedy="Give the server's user the right to read it.",
        ) from error
    except OSError as error:
        raise PlateError(
            "plate.unreadable",
            f"the file cannot be read: {error.strerror}",
            value=error.errno,
            path=path,
            remedy="Check the storage and copy the frame again.",
        ) from error
    if not data:
        raise PlateError(
            "plate.empty_file",
            "the file has no bytes",
            path=path,
            remedy="Render it again; a full disk or a killed render leaves such files.",
        )
    return data
