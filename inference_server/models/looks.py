"""Decides what a file looks like from its first bytes, so that a wrong one can be named instead of merely refused."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal[
    "torch-zip",
    "torch-legacy",
    "torchscript",
    "pickle",
    "npy",
    "npy-objects",
    "npz",
    "safetensors",
    "zip",
    "broken-zip",
    "html",
    "lfs-pointer",
    "text",
    "empty",
    "compressed",
    "other",
]

_LEGACY_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # LONG1 of torch's magic number, after PROTO
_HEAD = 4096


@dataclass(frozen=True)
class Look:
    """The kind of a file, and a phrase for the artist that continues "it looks like ..."."""

    kind: Kind
    phrase: str


def look_at(path: Path) -> Look:
    """What the file looks like. Reads its first bytes, and the directory of a zip archive. Raises OSError."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        return Look("empty", "an empty file")
    if head.startswith(b"PK\x03\x04"):
        return _look_at_zip(path)
    if head[:2] == b"\x80\x02" and head[2:].startswith(_LEGACY_MAGIC):
        return Look("torch-legacy", "a PyTorch file in the format before version 1.6")
    if head.startswith(b"\x93NUMPY"):
        objects = b"'|O'" in head[:128] or b"'O'" in head[:128]
        return Look("npy-objects", "a NumPy file of pickled objects") if objects else Look("npy", "a NumPy array")
    if len(head) > 9 and int.from_bytes(head[:8], "little") < 100 << 20 and head[8:9] == b"{":
        return Look("safetensors", "a safetensors file")
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Look("pickle", "a Python pickle")
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"\x28\xb5\x2f\xfd")):
        return Look("compressed", "a compressed archive; unpack it first")
    if head[257:262] == b"ustar":
        return Look("compressed", "a tar archive; unpack it first")
    return _look_at_text(head)


def _look_at_zip(path: Path) -> Look:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError):
        return Look("broken-zip", "the beginning of a zip or PyTorch file without its end (a download cut short)")
    tops = {name.partition("/")[2] for name in names}
    if "constants.pkl" in tops or any(rest.startswith("code/") for rest in tops):
        return Look("torchscript", "a TorchScript program, which carries code")
    if "data.pkl" in tops:
        return Look("torch-zip", "a PyTorch file")
    if names and all(name.endswith(".npy") for name in names):
        return Look("npz", "a NumPy .npz archive")
    listed = ", ".join(sorted(name for name in names if not name.endswith("/"))[:6]) or "nothing"
    return Look("zip", f"a zip archive that holds {listed}; unpack it and import the file you want")


def _look_at_text(head: bytes) -> Look:
    lowered = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if lowered.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")) or b"<html" in lowered[:512]:
        quota = b"quota" in lowered or b"too many users" in lowered or b"download anyway" in lowered
        why = ": Google Drive's notice that its quota is used up or a confirmation is needed" if quota else ""
        return Look("html", f"a web page saved under the file's name{why}")
    if lowered.startswith(b"version https://git-lfs.github.com/spec"):
        return Look("lfs-pointer", "a git-lfs pointer; fetch the file itself with `git lfs pull` or from its web page")
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return Look("other", f"no format Faceplate knows (it begins with {head[:8].hex(' ')})")
        text = head[: error.start].decode("utf-8")
    if text.isprintable() or all(c.isprintable() or c in "\r\n\t" for c in text):
        return Look("text", f"a text file that begins with {text.strip()[:60]!r}")
    return Look("other", f"no format Faceplate knows (it begins with {head[:8].hex(' ')})")
