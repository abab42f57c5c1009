"""An EXR file's headers and chunk table, read from its bytes: what is in the file before any pixel is decoded.

OpenEXR's Python binding gives attributes as Python values, which is not exact: rationals are reduced, text that is
not UTF-8 raises, empty vectors cannot be written back. So headers are parsed here, attributes stay the bytes they
are, and the binding only decodes pixels, from a copy whose other attributes it is made to ignore (`hide_attributes`).
The chunk table says whether the file is whole, which the binding does not (it prints a line and drops the part).

Source: "OpenEXR File Layout", openexr.com.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from host_bridge.errors import PlateError
from inference_server.plates.attributes import decode, window_of
from inference_server.plates.types import Attribute, Window

MAGIC = b"\x76\x2f\x31\x01"
_TILED, _LONG_NAMES, _DEEP, _MULTI_PART = 0x200, 0x400, 0x800, 0x1000
COMPRESSIONS = (
    "none", "rle", "zips", "zip", "piz", "pxr24", "b44", "b44a", "dwaa", "dwab", "htj2k256", "htj2k32", "lj2k", "zstd",
)  # fmt: skip
_CHUNK_LINES = {
    "none": 1, "rle": 1, "zips": 1, "zip": 16, "piz": 32, "pxr24": 16, "b44": 32, "b44a": 32, "dwaa": 32, "dwab": 256,
}  # fmt: skip
PIXEL_TYPES = ("uint", "half", "float")
# What the binding must understand to decode or encode pixels; everything else is opaque to it.
STRUCTURAL = frozenset(
    (
        "channels", "chunkCount", "compression", "dataWindow", "displayWindow", "lineOrder", "maxSamplesPerPixel",
        "name", "pixelAspectRatio", "screenWindowCenter", "screenWindowWidth", "tiles", "type", "version",
    )
)  # fmt: skip
# The library knows these by name and looks at their type and value.
_CHECKED_NAMES = frozenset(
    (
        "adoptedNeutral", "cameraColorBalance", "chromaticities", "originalDataWindow", "sensorAcquisitionRectangle",
        "sensorCenterOffset", "sensorOverallDimensions",
    )
)  # fmt: skip
_HIDE = ord("~")
_MAX_SAMPLE_BYTES = 1 << 35


@dataclass(frozen=True)
class ChannelInfo:
    """One entry of a channel list. `type` is one of PIXEL_TYPES."""

    type: str
    linear: bool
    x_sampling: int
    y_sampling: int


@dataclass(frozen=True)
class PartHeader:
    """One part's attributes in file order, where each type name lies in the file, and the channel list."""

    attributes: Mapping[str, Attribute]
    type_spans: Mapping[str, tuple[int, int]]
    channels: Mapping[str, ChannelInfo]

    @property
    def compression(self) -> str:
        return COMPRESSIONS[self.attributes["compression"].data[0]]

    @property
    def data_window(self) -> Window:
        return window_of(self.attributes["dataWindow"])

    def text(self, name: str) -> str:
        attribute = self.attributes.get(name)
        return str(decode(attribute)) if attribute is not None and attribute.type == "string" else ""


@dataclass(frozen=True)
class FileHeader:
    """All parts of a file. `end` is where the first chunk table begins."""

    parts: tuple[PartHeader, ...]
    multi_part: bool
    tiled: bool
    deep: bool
    end: int

    def is_tiled(self, index: int) -> bool:
        """Whether part `index` is stored in tiles."""
        return self.parts[index].text("type") == "tiledimage" if self.multi_part else self.tiled


def _damaged(reason: str) -> PlateError:
    return PlateError(
        "plate.unreadable",
        f"the EXR header is damaged: {reason}",
        value=reason,
        remedy="Render or copy the frame again.",
    )


def truncated(reason: str) -> PlateError:
    """The error for a file that ends too early."""
    return PlateError(
        "plate.truncated",
        f"the file ends before its pixels do: {reason}",
        value=reason,
        remedy="Wait until the frame is fully written or copied, or render it again.",
    )


class _Cursor:
    def __init__(self, data: bytes | bytearray, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        if size < 0:
            raise _damaged(f"a size of {size} at byte {self.at}")
        if self.at + size > len(self.data):
            raise truncated(f"the header needs byte {self.at + size} of {len(self.data)}")
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def text(self) -> bytes:
        end = self.data.find(b"\0", self.at, self.at + 257)
        if end < 0:
            if len(self.data) - self.at < 257:
                raise truncated("it stops inside a name of the header")
            raise _damaged(f"a name longer than 255 bytes at byte {self.at}")
        found = self.take(end - self.at)
        self.at += 1
        return found


def parse_channels(data: bytes) -> dict[str, ChannelInfo]:
    """The entries of a `chlist` attribute, in file order. Raises PlateError `plate.unreadable`."""
    cursor, found = _Cursor(data, 0), {}
    while name := cursor.text():
        kind, linear, xs, ys = struct.unpack("<iB3x2i", cursor.take(16))
        if not 0 <= kind < len(PIXEL_TYPES) or xs < 1 or ys < 1:
            raise _damaged(f"channel {name!r} has type {kind} and sampling {xs}x{ys}")
        try:
            found[name.decode()] = ChannelInfo(PIXEL_TYPES[kind], bool(linear), xs, ys)
        except UnicodeDecodeError as error:
            raise _damaged(f"channel name {name!r} is not UTF-8") from error
    return found


def _part(cursor: _Cursor) -> PartHeader | None:
    attributes: dict[str, Attribute] = {}
    spans: dict[str, tuple[int, int]] = {}
    while raw := cursor.text():
        name = raw.decode("utf-8", "surrogateescape")
        start = cursor.at
        kind = cursor.text()
        if not kind:
            raise _damaged(f"attribute {name!r} has no type")
        spans[name] = (start, cursor.at - 1)
        (size,) = struct.unpack("<i", cursor.take(4))
        attributes[name] = Attribute(kind.decode("utf-8", "surrogateescape"), cursor.take(size))
    if not attributes:
        return None
    for name, size in (("channels", 1), ("compression", 1), ("dataWindow", 16), ("displayWindow", 16)):
        if len(attributes.get(name, Attribute("", b"")).data) < size:
            raise _damaged(f"attribute {name!r} is missing or too short")
    if attributes["compression"].data[0] >= len(COMPRESSIONS):
        raise _damaged(f"compression number {attributes['compression'].data[0]} is not known")
    part = PartHeader(attributes, spans, parse_channels(attributes["channels"].data))
    for name in ("dataWindow", "displayWindow"):
        window = window_of(attributes[name])
        if window.width < 1 or window.height < 1:
            raise _damaged(f"{name} is empty ({window.width} x {window.height})")
    window = part.data_window
    if not part.channels:
        raise _damaged("a part has no channels")
    if window.width * window.height * len(part.channels) * 4 > _MAX_SAMPLE_BYTES:
        raise _damaged(f"{window.width} x {window.height} with {len(part.channels)} channels is too large")
    return part


def parse_header(data: bytes | bytearray) -> FileHeader:
    """Read the headers. Raises PlateError `plate.unreadable` or `plate.truncated`; deep files are parsed too."""
    if bytes(data[:4]) != MAGIC[: len(data)]:
        raise _damaged("it does not begin with EXR's magic number")
    cursor = _Cursor(data, 4)
    (flags,) = struct.unpack("<I", cursor.take(4))
    if flags & 0xFF != 2:
        raise _damaged(f"file format version {flags & 0xFF}, expected 2")
    multi = bool(flags & _MULTI_PART)
    parts: list[PartHeader] = []
    while (part := _part(cursor)) is not None:
        parts.append(part)
        if not multi:
            break
    if not parts:
        raise _damaged("it has no header")
    deep = bool(flags & _DEEP) or any(part.text("type").startswith("deep") for part in parts)
    return FileHeader(tuple(parts), multi, bool(flags & _TILED), deep, cursor.at)


def _levels(size: int, round_up: bool) -> int:
    return (size - 1).bit_length() + 1 if round_up else size.bit_length()


def _level_tiles(size: int, tile: int, level: int, round_up: bool) -> int:
    scaled = -(-size // (1 << level)) if round_up else size >> level
    return -(-max(1, scaled) // tile)


def _chunk_count(part: PartHeader, tiled: bool) -> int | None:
    stated = part.attributes.get("chunkCount")
    if stated is not None and len(stated.data) == 4:
        return int(struct.unpack("<i", stated.data)[0])
    window = part.data_window
    if not tiled:
        lines = _CHUNK_LINES.get(part.compression)
        return None if lines is None else -(-window.height // lines)
    if "tiles" not in part.attributes or len(part.attributes["tiles"].data) != 9:
        raise _damaged("a tiled part has no tile description")
    tile_w, tile_h, mode = struct.unpack("<2IB", part.attributes["tiles"].data)
    if not (tile_w and tile_h):
        raise _damaged(f"tiles of {tile_w} x {tile_h}")
    up = bool(mode >> 4)

    def tiles(level_x: int, level_y: int) -> int:
        across = _level_tiles(window.width, tile_w, level_x, up)
        return across * _level_tiles(window.height, tile_h, level_y, up)

    if mode & 0xF == 0:
        return tiles(0, 0)
    if mode & 0xF == 1:
        return sum(tiles(level, level) for level in range(_levels(max(window.width, window.height), up)))
    columns = range(_levels(window.width, up))
    return sum(tiles(x, y) for x in columns for y in range(_levels(window.height, up)))


def check_chunks(data: bytes | bytearray, header: FileHeader) -> None:
    """See that every chunk the tables name lies inside the file. Raises PlateError `plate.truncated`."""
    at, raw = header.end, np.frombuffer(data, np.uint8)
    for index, part in enumerate(header.parts):
        tiled = header.is_tiled(index)
        count = _chunk_count(part, tiled)
        if count is None:
            return  # a codec whose chunk height is not known here: the decoder has the last word
        if count < 1 or at + 8 * count > len(data):
            raise truncated(f"its table of {count} blocks is not complete")
        offsets = np.frombuffer(data, "<u8", count, at)
        at += 8 * count
        lead = (16 if tiled else 4) + (4 if header.multi_part else 0)
        whole = (offsets >= header.end) & (offsets <= max(0, len(data) - lead - 4))
        if whole.all():
            places = offsets.astype(np.int64)[:, None] + lead + np.arange(4)
            sizes = raw[places].view("<i4")[:, 0].astype(np.int64)
            whole = (sizes >= 0) & (offsets.astype(np.int64) + lead + 4 + sizes <= len(data))
        if not whole.all():
            raise truncated(f"{int((~whole).sum())} of {count} blocks are missing")


def hide_attributes(data: bytearray, header: FileHeader) -> None:
    """Make every attribute that pixels do not need opaque to the decoder, in place (see `hidden`)."""
    for part in header.parts:
        for name, (start, end) in part.type_spans.items():
            if name not in STRUCTURAL:
                data[end - 1] = _HIDE
            if name in _CHECKED_NAMES:
                data[start - 2] = _HIDE


def hidden(name: str, type_name: str) -> tuple[str, str]:
    """Name and type under which an attribute passes through the encoder as bytes."""
    return (name[:-1] + chr(_HIDE) if name in _CHECKED_NAMES else name), type_name[:-1] + chr(_HIDE)


def show_attributes(data: bytearray, parts: list[dict[str, Attribute]]) -> None:
    """Undo `hidden` in an encoded file, in place. `parts` are the attributes of each part under their own names."""
    for found, wanted in zip(parse_header(data).parts, parts, strict=True):
        for name, attribute in wanted.items():
            start, end = found.type_spans[hidden(name, attribute.type)[0]]
            data[start:end] = attribute.type.encode()
            raw = name.encode()
            data[start - 1 - len(raw) : start - 1] = raw
