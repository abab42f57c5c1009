"""Small pictures on disk: binary PPM, which every program reads and the standard library writes."""

from __future__ import annotations

import re
from pathlib import Path

from host_bridge.files import write_whole
from panels.controller.preview import Picture

_HEADER = re.compile(rb"P6 (\d{1,5}) (\d{1,5}) 255\n")


def write_ppm(path: Path, picture: Picture) -> None:
    """Write a picture, whole or not at all. OSError."""
    write_whole(path, b"P6 %d %d 255\n" % (picture.width, picture.height) + picture.pixels)


def read_ppm(path: Path) -> Picture | None:
    """A picture that `write_ppm` wrote; None if there is none, or not a whole one."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    header = _HEADER.match(data)
    if header is None:
        return None
    width, height = int(header[1]), int(header[2])
    pixels = data[header.end() :]
    return Picture(pixels, width, height) if len(pixels) == width * height * 3 else None
