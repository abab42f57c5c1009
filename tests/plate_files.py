"""Real EXR files for tests: any mix of parts, sample types, windows, tiles and attributes, and broken ones.

Written with OpenEXR's binding directly, not with the code under test.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from inference_server.plates.attributes import Timecode, encode
from inference_server.plates.types import Attribute, Window

HALF_SPECIALS = np.array([0x7C00, 0xFC00, 0x7E01, 0xFE55, 0x7D23, 0x8000, 0x0001, 0x7BFF], np.uint16).view(np.float16)
FLOAT_SPECIALS = np.array(
    [0x7F800000, 0xFF800000, 0x7FC00123, 0xFFC0BEEF, 0x7F812345, 0x80000000, 1, 0x7F7FFFFF], np.uint32
).view(np.float32)
UINT_SPECIALS = np.array([0, 1, 2**24 + 1, 2**31, 2**32 - 1, 2**32 - 2, 123456789, 7], np.uint32)


@dataclass(frozen=True)
class PartSpec:
    """One part to write. `tile` (width, height) makes it tiled; `box` is the data window, `display` the other one."""

    channels: Mapping[str, NDArray[Any]]
    name: str = ""
    box: Window | None = None
    display: Window | None = None
    compression: str = "zip"
    tile: tuple[int, int] | None = None
    decreasing: bool = False
    aspect: float = 1.0
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


def samples(kind: str, height: int, width: int, seed: int = 0, specials: bool = True) -> NDArray[Any]:
    """[height, width] of "half", "float" or "uint": a picture-like ramp with noise, its first 8 samples extreme."""
    rng = np.random.default_rng(seed)
    if kind == "uint":
        out = rng.integers(0, 2**32, (height, width), np.uint32)
        extreme: NDArray[Any] = UINT_SPECIALS
    else:
        ramp = np.linspace(-0.1, 3.0, width, dtype=np.float32)[None] + rng.normal(0, 0.01, (height, width))
        out = ramp.astype(np.float16 if kind == "half" else np.float32)
        extreme = HALF_SPECIALS if kind == "half" else FLOAT_SPECIALS
    if specials:
        out.reshape(-1)[: len(extreme)] = extreme[: out.size]
    return out


def rgba(height: int = 24, width: int = 40, kind: str = "half", seed: int = 0, specials: bool = True) -> dict[str, Any]:
    """Channels R, G, B, A; A is 1 but for a soft column."""
    out = {name: samples(kind, height, width, seed + i, specials) for i, name in enumerate("RGB")}
    alpha = np.ones((height, width), out["R"].dtype)
    alpha[:, : width // 4] = 0.25
    return {**out, "A": alpha}


def timecode(text: str, **flags: Any) -> Attribute:
    """`01:02:03:04` as an attribute."""
    hours, minutes, seconds, frame = (int(t) for t in text.replace(";", ":").split(":"))
    return Timecode(hours, minutes, seconds, frame, drop=";" in text, **flags).pack()


def odd_attributes() -> dict[str, Attribute]:
    """One attribute of every kind, with values that conversions to Python change."""
    return {
        "timeCode": timecode("01:02:03:04", user=0xDEADBEEF),
        "keyCode": encode("keycode", (1, 2, 123456, 7890, 3, 4, 64)),
        "framesPerSecond": Attribute("rational", struct.pack("<iI", 48000, 2002)),
        "zeroRational": Attribute("rational", struct.pack("<iI", 1, 0)),
        "chromaticities": encode("chromaticities", (0.713, 0.293, 0.165, 0.83, 0.128, 0.044, 0.32168, 0.33767)),
        "comments": encode("string", "déjà vu — 東京"),
        "latin": Attribute("string", b"caf\xe9"),
        "empty": encode("string", ""),
        "noStrings": encode("stringvector", []),
        "strings": encode("stringvector", ["a", "", "ccc"]),
        "noFloats": encode("floatvector", []),
        "floats": encode("floatvector", [1.5, float("inf")]),
        "count": encode("int", -7),
        "gain": encode("float", 0.1),
        "precise": encode("double", 0.1),
        "v2i": encode("v2i", (1, -2)),
        "v2f": encode("v2f", (1.5, -2)),
        "v3d": encode("v3d", (0.1, 0.2, 0.3)),
        "worldToCamera": encode("m44f", range(16)),
        "crop": encode("box2f", (0.25, 0.5, 1, 2)),
        "envmap": encode("envmap", 1),
        "adoptedNeutral": encode("v2f", (0.32168, 0.33767)),
        "wrongSize": Attribute("timecode", b"\x01\x02\x03"),
        "preview": Attribute("preview", struct.pack("<2I", 1, 1) + bytes([1, 2, 3, 4])),
        "studio:strange": Attribute("vendorBlob", bytes(range(256))),
        "aNameThatIsLongerThanThirtyOneCharactersIsAllowedToo": encode("string", "x"),
    }


def write_exr(path: Path | str, *parts: PartSpec, threads: int = 0) -> str:
    """Write parts to a file; returns its path as text."""
    built = []
    patches: dict[bytes, bytes] = {}
    for spec in parts:
        height, width = next(iter(spec.channels.values())).shape
        box = spec.box or Window(0, 0, width, height)
        display = spec.display or box
        header: dict[str, Any] = {
            "compression": getattr(
                OpenEXR, f"{'NO' if spec.compression == 'none' else spec.compression.upper()}_COMPRESSION"
            ),
            "type": OpenEXR.tiledimage if spec.tile else OpenEXR.scanlineimage,
            "dataWindow": ((box.x0, box.y0), (box.x1 - 1, box.y1 - 1)),
            "displayWindow": ((display.x0, display.y0), (display.x1 - 1, display.y1 - 1)),
            "lineOrder": OpenEXR.DECREASING_Y if spec.decreasing else OpenEXR.INCREASING_Y,
            "pixelAspectRatio": float(spec.aspect),
        }
        if spec.tile:
            tiles = OpenEXR.TileDescription()
            tiles.xSize, tiles.ySize = spec.tile
            tiles.mode, tiles.roundingMode = OpenEXR.ONE_LEVEL, OpenEXR.ROUND_DOWN
            header["tiles"] = tiles
        for name, attribute in spec.attributes.items():
            # The binding takes bytes only for types and names it does not know, so these are put right afterwards.
            shown = f"{name}\0{attribute.type}\0".encode()
            other = f"{name[:-1]}~" if name in ("chromaticities", "adoptedNeutral") else name
            header[other] = OpenEXR.OpaqueAttribute(attribute.data, attribute.type[:-1] + "~")
            patches[f"{other}\0{attribute.type[:-1]}~\0".encode()] = shown
        built.append(OpenEXR.Part(header, {k: np.ascontiguousarray(v) for k, v in spec.channels.items()}, spec.name))
    OpenEXR.File(built, num_threads=threads).write(str(path))
    data = Path(path).read_bytes()
    for hidden, shown in patches.items():
        data = data.replace(hidden, shown)
    Path(path).write_bytes(data)
    return str(path)


def write_plate_file(path: Path | str, frame: int = 1001, height: int = 24, width: int = 40, **changes: Any) -> str:
    """One ordinary frame: half RGBA, ZIP, timecode of its frame number at 24 fps."""
    attributes = {
        "timeCode": Timecode(0, 0, 0, 0).advanced(frame, Fraction(24)).pack(),
        "framesPerSecond": encode("rational", (24, 1)),
        "capDate": encode("string", "2020:01:02 03:04:05"),
    }
    spec = PartSpec(rgba(height, width, seed=frame), attributes=attributes)
    return write_exr(path, PartSpec(**{**spec.__dict__, **changes}))


def write_sequence(folder: Path, frames: range | list[int], name: str = "sh010.%04d.exr", **changes: Any) -> str:
    """Frames of one plate; returns the pattern."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in frames:
        write_plate_file(folder / (name % frame), frame, **changes)
    return str(folder / name)


def write_deep(path: Path | str) -> str:
    """A deep scanline file with two samples in every other pixel."""
    pixels = np.empty((4, 6), object)
    for i in range(pixels.size):
        pixels.reshape(-1)[i] = np.array([1.0, 2.0], np.float32) if i % 2 else None
    OpenEXR.File(
        [OpenEXR.Part({"type": OpenEXR.deepscanline, "compression": OpenEXR.ZIPS_COMPRESSION}, {"Z": pixels})]
    ).write(str(path))
    return str(path)


def write_ripmap(path: Path | str, size: int = 5, tile: int = 4, mode: int = 2) -> tuple[str, NDArray[np.float32]]:
    """A float `Y` picture of size x size with all its levels (mode 1 mipmap, 2 ripmap), uncompressed, made by hand."""
    levels = [max(1, size >> i) for i in range(size.bit_length())]
    pairs = (
        [(i, i) for i in range(len(levels))]
        if mode == 1
        else [(x, y) for y in range(len(levels)) for x in range(len(levels))]
    )
    full = np.arange(size * size, dtype=np.float32).reshape(size, size)

    def attribute(name: str, kind: str, data: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(data)) + data

    window = struct.pack("<4i", 0, 0, size - 1, size - 1)
    header = b"\x76\x2f\x31\x01" + struct.pack("<I", 2 | 0x200)
    header += attribute("channels", "chlist", b"Y\0" + struct.pack("<iB3x2i", 2, 0, 1, 1) + b"\0")
    header += attribute("compression", "compression", b"\0") + attribute("dataWindow", "box2i", window)
    header += attribute("displayWindow", "box2i", window) + attribute("lineOrder", "lineOrder", b"\0")
    header += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    header += attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
    header += attribute("screenWindowWidth", "float", struct.pack("<f", 1))
    header += attribute("tiles", "tiledesc", struct.pack("<2IB", tile, tile, mode)) + b"\0"
    chunks = []
    for lx, ly in pairs:
        picture = (
            full[: levels[ly], : levels[lx]]
            if (lx, ly) == (0, 0)
            else np.full((levels[ly], levels[lx]), -1, np.float32)
        )
        for y in range(0, levels[ly], tile):
            for x in range(0, levels[lx], tile):
                data = np.ascontiguousarray(picture[y : y + tile, x : x + tile]).tobytes()
                chunks.append(struct.pack("<5i", x // tile, y // tile, lx, ly, len(data)) + data)
    at, table = len(header) + 8 * len(chunks), b""
    for chunk in chunks:
        table += struct.pack("<Q", at)
        at += len(chunk)
    Path(path).write_bytes(header + table + b"".join(chunks))
    return str(path), full


def same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Equal type, shape and bits (NaN payloads and signed zeros count)."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and np.ascontiguousarray(a).tobytes() == np.ascontiguousarray(b).tobytes()
    )


def independent_read(path: str) -> list[dict[str, NDArray[Any]]]:
    """Every part's channels by OpenEXR's own binding, without the code under test."""
    return [
        {name: channel.pixels for name, channel in part.channels.items()}
        for part in OpenEXR.File(path, separate_channels=True).parts
    ]
