"""DPX, TIFF, PNG and JPEG plates through OpenImageIO, as float32 samples that go back to the same integers.

Decided here:
- Integers are normalised to 0..1 by their full scale (8 bits by 255; 10, 12 and 16 bits by 65535, as
  OpenImageIO expands them) in float32, from which every integer comes back exactly. Half and float TIFF
  samples are kept as they are. 32-bit integers and doubles do not fit float32 and are refused.
- Alpha is never multiplied or divided: unassociated alpha is read and written as stored.
- The format and bits go along as the attribute `faceplate:sourceFormat` ("dpx uint10"). Written as EXR a plate
  holds the normalised floats and loses nothing. It can be written as its own format again, at its own bits, with
  the source file's metadata; values outside 0..1 are then clipped (with a warning). No other conversion is made,
  since display formats hold other colours than scene-linear EXR. JPEG is read only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import OpenImageIO as oiio

from host_bridge.errors import PlateError
from inference_server.plates.attributes import decode, encode
from inference_server.plates.exr import PlateWarning
from inference_server.plates.types import Attribute, Part, PlateFrame, Samples, Window

EXTENSIONS = {".dpx": "dpx", ".tif": "tiff", ".tiff": "tiff", ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg"}
SOURCE_FORMAT = "faceplate:sourceFormat"
PROVENANCE_PREFIX = "faceplate: "
_DPX_NAME = range(36, 136)
_RENAMED = {"ImageDescription": "comments", "Copyright": "owner", "DateTime": "capDate"}
_FULL_SCALE = {"uint8": 255, "uint16": 65535}


def format_of(path: str) -> str:
    """ "exr", "dpx", "tiff", "png" or "jpeg" by a path's extension. Raises PlateError `plate.format` for any other."""
    extension = os.path.splitext(path)[1].lower()
    if extension == ".exr":
        return "exr"
    if extension not in EXTENSIONS:
        raise PlateError(
            "plate.format",
            f"files of type {extension or '(none)'!r} are not read or written",
            value=extension,
            path=path,
            remedy="Use .exr, .dpx, .tif, .png or (to read) .jpg.",
        )
    return EXTENSIONS[extension]


def _unreadable(path: str, reason: str) -> PlateError:
    reason = " ".join(reason.split()) or "unknown reason"
    ended = any(words in reason for words in ("end of file", "got ", "Read error", "truncated"))
    code = "plate.truncated" if ended else "plate.unreadable"
    return PlateError(
        code,
        f"the picture cannot be decoded: {reason}",
        value=reason,
        path=path,
        remedy="Check that it is a whole picture of the type its name says; write or copy it again.",
    )


def _open(path: str) -> Any:
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    config.attribute("oiio:RawColor", 1)
    found = oiio.ImageInput.open(path, config)
    if found is None:
        raise _unreadable(path, oiio.geterror())
    return found


def read_image(path: str, frame: int, made: str = "") -> PlateFrame:
    """Decode a DPX, TIFF, PNG or JPEG file; `made` names its format where the extension does not.

    Raises PlateError `plate.unreadable`, `plate.truncated` or `plate.format`.
    """
    made = made or format_of(path)
    if made == "dpx":
        _check_dpx_size(path)
    source = _open(path)
    try:
        spec = _flat_spec(source, path, made)
        stored = source.read_image(0, 0, 0, spec.nchannels, spec.format)
        problem = source.geterror()
    finally:
        source.close()
    if stored is None or problem:
        raise _unreadable(path, problem)
    return PlateFrame(frame, path, (_part(spec, stored, path, made),))


def outline_image(path: str, frame: int) -> PlateFrame:
    """The file without its samples, which are [0, 0]. Errors as `read_image`."""
    made = format_of(path)
    source = _open(path)
    try:
        spec = _flat_spec(source, path, made)
    finally:
        source.close()
    # The type OpenImageIO would give the samples, so that the same files are refused.
    kind = {"half": "float16", "float": "float32"}.get(str(spec.format), str(spec.format))
    return PlateFrame(frame, path, (_part(spec, np.empty((0, 0, spec.nchannels), kind), path, made),))


def _flat_spec(source: Any, path: str, made: str) -> Any:
    spec = source.spec()
    if spec.deep or spec.depth != 1:
        raise PlateError("plate.format", "the file is not a flat picture", path=path, remedy="Write it flat.")
    if spec.nchannels > 4 and made != "tiff":
        raise _unreadable(path, f"{spec.nchannels} channels")
    return spec


def _part(spec: Any, stored: Samples, path: str, made: str) -> Part:
    """The picture as a part: `stored` [H, W, C] of the spec's own type."""
    kind = str(spec.format)
    if kind in _FULL_SCALE:
        bits = spec.get_int_attribute("oiio:BitsPerSample", 8 if kind == "uint8" else 16)
        samples = stored.astype(np.float32) / np.float32(_FULL_SCALE[kind])
        note = f"{made} uint{bits}"
    elif kind in ("half", "float"):
        samples, note = stored, f"{made} {kind}"
    else:
        raise PlateError(
            "plate.format",
            f"samples of type {kind} do not fit float32 exactly",
            value=kind,
            path=path,
            remedy="Write the plate as EXR, or with at most 16-bit integers.",
        )
    names = [n if n not in spec.channelnames[:i] else f"{n}{i}" for i, n in enumerate(spec.channelnames)]
    data = Window(spec.x, spec.y, spec.x + spec.width, spec.y + spec.height)
    display = Window(
        spec.full_x, spec.full_y, spec.full_x + spec.full_width, spec.full_y + spec.full_height
    )  # fmt: skip
    return Part(
        name="",
        channels={name: np.ascontiguousarray(samples[:, :, i]) for i, name in enumerate(names)},
        data_window=data,
        display_window=display if display.width > 0 and display.height > 0 else data,
        pixel_aspect=float(spec.get_float_attribute("PixelAspectRatio", 1.0)) or 1.0,
        header={**_attributes(spec), SOURCE_FORMAT: encode("string", note)},
    )


def _check_dpx_size(path: str) -> None:
    """See that a DPX file is as long as its header says; the decoder would fill what is missing."""
    with open(path, "rb") as file:
        head = file.read(20)
        size = os.fstat(file.fileno()).st_size
    if len(head) == 20 and head[:4] in (b"SDPX", b"XPDS"):
        stated = int.from_bytes(head[16:20], "big" if head[:1] == b"S" else "little")
        if size < stated < 0xFFFFFFFF:
            raise _unreadable(path, f"end of file at byte {size} of {stated}")


def _attributes(spec: Any) -> dict[str, Attribute]:
    """What is worth keeping of a picture's metadata in an EXR header, under EXR's names."""
    kept: dict[str, Attribute] = {}
    for item in spec.extra_attribs:
        name, kind, value = item.name, str(item.type), item.value
        if name == "smpte:TimeCode":
            kept["timeCode"] = encode("timecode", value)
        elif name == "smpte:KeyCode":
            kept["keyCode"] = encode("keycode", value)
        elif name == "FramesPerSecond":
            rate = value if isinstance(value, tuple) else Fraction(value).limit_denominator(1001)
            kept["framesPerSecond"] = encode("rational", rate)
        elif name.startswith(("oiio:", "tiff:", "png:")) or name in ("PixelAspectRatio", "compression"):
            continue  # how this file was stored, not what it shows
        elif kind == "string":
            kept[_RENAMED.get(name, name)] = encode("string", value)
        elif kind in ("int", "float"):
            kept[name] = encode(kind, value)
    return kept


def source_format(frame: PlateFrame) -> str:
    """`dpx uint10` for a plate that came through this module, "" for EXR."""
    stored = frame.parts[0].header.get(SOURCE_FORMAT)
    is_exr = os.path.splitext(frame.path)[1].lower() == ".exr"
    return str(decode(stored)) if stored is not None and not is_exr else ""


def write_image(frame: PlateFrame, path: str, target: str, provenance: Mapping[str, str]) -> list[PlateWarning]:
    """Write a plate back to its own format: `target` is the file to make, `path` the name it will have.

    Metadata is the source file's, with the frame's own timecode; `provenance` becomes one line of JSON in the image
    description (DPX has no room for it: a warning). Raises PlateError `plate.format` or `plate.write_failed`.
    """
    made, _, kind = source_format(frame).partition(" ")
    wanted = format_of(path)
    if made != wanted or made == "jpeg":
        raise PlateError(
            "plate.format",
            f"the plate is {made or 'exr'}, the output {wanted}"
            + (", which loses something with every writing" if made == wanted else ""),
            value=wanted,
            frame=frame.frame,
            path=path,
            remedy="Write .exr"
            + (f" or .{made}" if made not in ("", "jpeg") else "")
            + "; other pictures would need another colourspace.",
        )
    source = _open(frame.path)
    spec = source.spec().copy()
    source.close()
    part = frame.parts[0]
    if len(frame.parts) != 1 or len(part.channels) != spec.nchannels:
        raise PlateError(
            "plate.format",
            f"{made.upper()} cannot hold the extra channels {list(part.channels)[spec.nchannels :]}",
            value=list(part.channels),
            frame=frame.frame,
            path=path,
            remedy="Write .exr, or the mattes as their own sequence.",
        )
    warnings: list[PlateWarning] = []
    pixels = np.stack(list(part.channels.values()), axis=-1)
    if kind.startswith("uint"):
        pixels = _integers(pixels, np.dtype(np.uint8 if kind == "uint8" else np.uint16), warnings)
    if "timeCode" in part.header:
        spec.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), tuple(decode(part.header["timeCode"])))
    spec.attribute("oiio:UnassociatedAlpha", 1)
    if not spec.get_string_attribute("DateTime"):
        spec.attribute("DateTime", " ")  # or the writer would put the present time
    if provenance and made == "dpx":
        warnings.append(PlateWarning("plate.provenance", "DPX has no room for what made the picture"))
    elif provenance:
        line = PROVENANCE_PREFIX + json.dumps(dict(provenance), sort_keys=True)
        known = spec.get_string_attribute("ImageDescription")
        kept = "\n".join(text for text in known.split("\n") if text and not text.startswith(PROVENANCE_PREFIX))
        spec.attribute("ImageDescription", f"{kept}\n{line}" if kept else line)
    output = oiio.ImageOutput.create(path)
    if output is None or not output.open(target, spec):
        raise _failed(path, frame.frame, output.geterror() if output else oiio.geterror())
    written = output.write_image(pixels)
    problem = output.geterror()
    if not output.close() or not written:
        raise _failed(path, frame.frame, problem or output.geterror())
    if made == "dpx":
        with open(target, "r+b") as file:  # the header names the file: the one it will be
            file.seek(_DPX_NAME.start)
            file.write(os.path.basename(path).encode()[: len(_DPX_NAME) - 1].ljust(len(_DPX_NAME), b"\0"))
    return warnings


def _failed(path: str, frame: int, reason: str) -> PlateError:
    return PlateError(
        "plate.write_failed",
        f"the picture cannot be written: {' '.join(reason.split())}",
        frame=frame,
        path=path,
        remedy="Check the disk, or write .exr.",
    )


def _integers(samples: Samples, dtype: np.dtype[Any], warnings: list[PlateWarning]) -> Samples:
    """Normalised [H, W, C] float32 back to integers; exact for values that came from integers."""
    if not (np.isfinite(samples).all() and samples.min() >= 0 and samples.max() <= 1):
        text = "values outside 0..1 are clipped by the output's integer format; write .exr to keep them"
        warnings.append(PlateWarning("plate.clipped", text))
    scaled = np.clip(np.nan_to_num(samples, nan=0.0), 0, 1) * np.float32(np.iinfo(dtype).max)
    rounded: Samples = np.rint(scaled).astype(dtype)
    return rounded


def read_description(path: str) -> str:
    """The image description of a picture that is not EXR."""
    source = _open(path)
    try:
        return str(source.spec().get_string_attribute("ImageDescription"))
    finally:
        source.close()
