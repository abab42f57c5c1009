"""EXR files as bytes: decoded into a `PlateFrame` and encoded from one, sample for sample and attribute for attribute.

One route for reading and writing: OpenEXR's own Python binding, through memory. It keeps half, float and uint32
samples as they are (mixed types in one part, NaN payloads), handles scanline and tiled, single and multi-part, lets
Python run meanwhile, and is as fast as OpenImageIO, whose Python arrays have one type per image and so change
unsigned-integer parts. What it does not do is done around it: headers are parsed and given back as bytes
(`exrheader`), damage is found before it is asked to decode, and deep images are refused.

Decided here:
- Mipmapped and ripmapped parts: level 0 is read, and written as one level, with a warning.
- Subsampled channels (luminance/chroma files) are refused with `plate.subsampled`.
- Compressions that lose nothing for a part's sample types are kept; others are written as ZIP with a warning,
  unless asked for by name or with "keep".
- Nothing is added but a `type` attribute where a single-part file had none (the binding always writes it).
  The same frame encodes to the same bytes, whatever the number of threads.

Codec threads: the work of one file stays on the calling thread by default, because a render keeps several frames in
flight; `use_codec_threads` gives a process that waits for single frames a pool.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import OpenEXR

from host_bridge.errors import PlateError, unknown_name
from inference_server.plates.attributes import box_of, decode, encode, window_of
from inference_server.plates.exrheader import (
    COMPRESSIONS,
    STRUCTURAL,
    ChannelInfo,
    FileHeader,
    check_chunks,
    hidden,
    hide_attributes,
    parse_channels,
    parse_header,
    show_attributes,
)
from inference_server.plates.types import Attribute, Part, PlateFrame, Samples

_EXACT = frozenset({"none", "rle", "zips", "zip", "piz", "htj2k256", "htj2k32", "zstd"})
_BINDING_COMPRESSION = {name: name.upper() for name in COMPRESSIONS} | {"none": "NO"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "uint": np.dtype(np.uint32),
    "half": np.dtype(np.float16),
    "float": np.dtype(np.float32),
}
_KINDS = {dtype: name for name, dtype in _DTYPES.items()}
_DWA_LEVEL = "dwaCompressionLevel"
_DEFAULTS: dict[str, Attribute] = {
    "lineOrder": encode("lineOrder", 0),
    "screenWindowCenter": encode("v2f", (0.0, 0.0)),
    "screenWindowWidth": encode("float", 1.0),
}


class PlateWarning(NamedTuple):
    """Something about a written frame the artist should know; `code` is dotted and stable."""

    code: str
    message: str


@dataclass(frozen=True)
class Encoded:
    """A file's bytes, what should be said about them, and whether every sample can be decoded from them exactly."""

    data: bytearray
    warnings: tuple[PlateWarning, ...]
    exact: bool


def use_codec_threads(count: int) -> None:
    """Let each file's blocks be coded by a pool of `count` threads of this process; 0 = by the calling thread."""
    if count < 0:
        raise PlateError(
            "request.bad_value", f"codec threads must be 0 or more, not {count}", value=count, remedy="Use 0."
        )
    OpenEXR.set_global_thread_count(count)


def is_exr(data: bytes | bytearray) -> bool:
    """Whether the bytes begin as an EXR file does."""
    return bytes(data[:4]) == b"\x76\x2f\x31\x01"


def read_exr_header(data: bytes | bytearray) -> FileHeader:
    """Headers of a whole, flat, not subsampled file.

    Raises PlateError `plate.unreadable`, `plate.truncated`, `plate.deep` or `plate.subsampled`.
    """
    header = parse_header(data)
    check_flat(header)
    check_chunks(data, header)
    return header


def check_flat(header: FileHeader) -> None:
    """Raise PlateError `plate.deep` or `plate.subsampled` for what cannot be treated."""
    if header.deep:
        raise PlateError(
            "plate.deep",
            "the file holds deep pixels, which cannot be composited",
            remedy="Flatten it first (DeepToImage in Nuke), or choose the flat render of the shot.",
        )
    for part in header.parts:
        for name, channel in part.channels.items():
            if (channel.x_sampling, channel.y_sampling) != (1, 1):
                raise PlateError(
                    "plate.subsampled",
                    f"channel {name!r} is stored at 1/{channel.x_sampling} x 1/{channel.y_sampling} size",
                    value=name,
                    remedy="Write the plate as RGB (luminance/chroma files lose colour resolution on every write).",
                )


def decode_exr(data: bytearray, *, frame: int, path: str) -> PlateFrame:
    """Decode every part. `data` is used up: its header is altered in place.

    Samples are stored values [H, W] of the data window, exactly as in the file. Errors as `read_exr_header`.
    """
    header = read_exr_header(data)
    hide_attributes(data, header)
    try:
        decoded = OpenEXR.File(io.BytesIO(data), separate_channels=True).parts
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise PlateError(
            "plate.unreadable", f"the EXR file cannot be decoded: {error}", remedy="Render or copy the frame again."
        ) from error
    if len(decoded) != len(header.parts):
        raise PlateError(
            "plate.unreadable",
            f"pixel data is damaged: {len(decoded)} of {len(header.parts)} parts can be decoded",
            value=len(decoded),
            remedy="Render or copy the frame again.",
        )
    samples = [
        {name: pixels.channels[name].pixels for name in part.channels}
        for part, pixels in zip(header.parts, decoded, strict=True)
    ]
    return PlateFrame(frame, path, tuple(_part(header, index, channels) for index, channels in enumerate(samples)))


def outline_exr(head: bytes | bytearray, *, frame: int, path: str) -> PlateFrame:
    """What the file's first bytes say of it: every part with all but its samples, which are [0, 0] of their type.

    Errors as `read_exr_header`; `plate.truncated` also where `head` ends before the headers do.
    """
    header = parse_header(head)
    check_flat(header)
    samples = [
        {name: np.empty((0, 0), _DTYPES[channel.type]) for name, channel in part.channels.items()}
        for part in header.parts
    ]
    return PlateFrame(frame, path, tuple(_part(header, index, channels) for index, channels in enumerate(samples)))


def _part(file: FileHeader, index: int, samples: Mapping[str, Samples]) -> Part:
    header = file.parts[index]
    storage = encode("string", "tiledimage" if file.is_tiled(index) else "scanlineimage")
    aspect = header.attributes.get("pixelAspectRatio")
    return Part(
        name=header.text("name"),
        channels=samples,
        data_window=header.data_window,
        display_window=window_of(header.attributes["displayWindow"]),
        pixel_aspect=float(decode(aspect)) if aspect is not None and aspect.type == "float" else 1.0,
        header={**header.attributes, "type": storage},
    )


def encode_exr(
    frame: PlateFrame, *, compression: str = "", extra_attributes: Mapping[str, Attribute] | None = None
) -> Encoded:
    """Encode all parts. Channels, windows and names are those of each Part; the rest is taken from its header.

    `compression` is "" (what the plate had, where that loses nothing), "keep" (what it had, even so) or a name.
    `extra_attributes` are added to every part. Raises PlateError `plate.format`.
    """
    if compression and compression != "keep" and compression not in COMPRESSIONS:
        raise unknown_name("plate.format", "compression", compression, ["keep", *COMPRESSIONS])
    warnings: list[PlateWarning] = []
    chosen = [_compression(part, compression, warnings) for part in frame.parts]
    names = _part_names(frame.parts)
    free = [_free_attributes({**part.header, **(extra_attributes or {})}, warnings) for part in frame.parts]
    parts = [
        _binding_part(part, name, codec, attributes, warnings)
        for part, name, (codec, _), attributes in zip(frame.parts, names, chosen, free, strict=True)
    ]
    target = io.BytesIO()
    try:
        OpenEXR.File(parts).write(target)
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise PlateError(
            "plate.format",
            f"the frame cannot be written as EXR: {error}",
            frame=frame.frame,
            remedy="Check its channels and windows.",
        ) from error
    data = bytearray(target.getbuffer())
    show_attributes(data, free)
    return Encoded(data, tuple(dict.fromkeys(warnings)), all(exact for _, exact in chosen))


def _part_names(parts: tuple[Part, ...]) -> list[str]:
    if len(parts) == 1:
        return [parts[0].name]
    names = [part.name or f"part{index}" for index, part in enumerate(parts)]
    if len(set(names)) != len(names):
        raise PlateError(
            "plate.format",
            f"parts of one file need different names, not {names}",
            value=names,
            remedy="Name each part differently.",
        )
    return names


def kinds(part: Part) -> set[str]:
    """The sample types of a part ("half", "float", "uint"). Raises PlateError `plate.format` for any other."""
    found = set()
    for name, samples in part.channels.items():
        if samples.dtype not in _KINDS:
            raise PlateError(
                "plate.format",
                f"channel {name!r} is {samples.dtype}; EXR holds float16, float32 and uint32",
                value=str(samples.dtype),
                remedy="Convert the channel.",
            )
        found.add(_KINDS[samples.dtype])
    return found


def loses(codec: str, part: Part) -> bool:
    """Whether coding `part` with `codec` can change a sample."""
    if codec == "pxr24":
        return "float" in kinds(part)
    if codec in ("b44", "b44a"):
        return "half" in kinds(part)
    return codec not in _EXACT


def _compression(part: Part, asked: str, warnings: list[PlateWarning]) -> tuple[str, bool]:
    stored = part.header.get("compression")
    own = COMPRESSIONS[stored.data[0]] if stored is not None else "zip"
    codec = own if asked in ("", "keep") else asked
    kinds(part)
    if not loses(codec, part):
        return codec, True
    if not asked:
        text = f"{codec.upper()} cannot be written again without loss; written as ZIP"
        warnings.append(PlateWarning("plate.compression", text))
        return "zip", True
    text = f"{codec.upper()} loses precision: pixels outside the matte change slightly"
    warnings.append(PlateWarning("plate.lossy", text))
    return codec, False


def _binding_part(
    part: Part, name: str, codec: str, free: Mapping[str, Attribute], warnings: list[PlateWarning]
) -> Any:
    window = part.data_window
    for channel, samples in part.channels.items():
        if samples.shape != (window.height, window.width):
            raise PlateError(
                "plate.format",
                f"channel {channel!r} is {samples.shape}, its data window {(window.height, window.width)}",
                value=list(samples.shape),
                remedy="This is a bug: report it.",
            )
    attributes = {**_DEFAULTS, **part.header}
    tiled = "type" in attributes and decode(attributes["type"]) == "tiledimage"
    order = attributes["lineOrder"].data[0]
    header: dict[str, Any] = {
        "compression": getattr(OpenEXR, f"{_BINDING_COMPRESSION[codec]}_COMPRESSION"),
        "dataWindow": _box(box_of(window)),
        "displayWindow": _box(box_of(part.display_window)),
        "pixelAspectRatio": float(part.pixel_aspect),
        "screenWindowCenter": np.frombuffer(attributes["screenWindowCenter"].data, "<f4").astype(np.float32),
        "screenWindowWidth": float(decode(attributes["screenWindowWidth"])),
        "type": OpenEXR.tiledimage if tiled else OpenEXR.scanlineimage,
        "lineOrder": OpenEXR.LineOrder(order if tiled or order != 2 else 0),
    }
    if tiled:
        width, height, mode = struct.unpack("<2IB", attributes["tiles"].data)
        if mode & 0xF:
            text = "the plate's smaller tile levels are not written, only the full-size one"
            warnings.append(PlateWarning("plate.mip_levels", text))
        tiles = OpenEXR.TileDescription()
        tiles.xSize, tiles.ySize = width, height
        tiles.mode, tiles.roundingMode = OpenEXR.ONE_LEVEL, OpenEXR.LevelRoundingMode(mode >> 4)
        header["tiles"] = tiles
    for key, attribute in free.items():
        name_then, type_then = hidden(key, attribute.type)
        header[name_then] = OpenEXR.OpaqueAttribute(attribute.data, type_then)
    level = part.header.get(_DWA_LEVEL)
    if level is not None and level.type == "float":
        header[_DWA_LEVEL] = float(decode(level))  # the encoder itself reads this one
    infos = _channel_infos(part)
    channels = {
        channel: OpenEXR.Channel(
            channel, np.ascontiguousarray(samples), 1, 1, infos[channel].linear if channel in infos else False
        )
        for channel, samples in part.channels.items()
    }
    return OpenEXR.Part(header, channels, name)


def _free_attributes(header: Mapping[str, Attribute], warnings: list[PlateWarning]) -> dict[str, Attribute]:
    """What travels as bytes: everything but what describes how pixels are stored."""
    free = {}
    for name, attribute in header.items():
        if name in STRUCTURAL or (name == _DWA_LEVEL and attribute.type == "float"):
            continue
        try:
            name.encode()
            attribute.type.encode()
        except UnicodeEncodeError:
            warnings.append(PlateWarning("plate.attribute", f"an attribute's name is not UTF-8; left out: {name!a}"))
            continue
        free[name] = attribute
    return free


def _box(attribute: Attribute) -> tuple[Samples, Samples]:
    corners = np.frombuffer(attribute.data, "<i4").astype(np.int32)
    return corners[:2].copy(), corners[2:].copy()


def _channel_infos(part: Part) -> dict[str, ChannelInfo]:
    stored = part.header.get("channels")
    return parse_channels(stored.data) if stored is not None and stored.type == "chlist" else {}
