"""Small files put in place at once: written beside their place, then moved there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_whole(path: Path, content: bytes, *, keep_mode: bool = False) -> None:
    """Write a file, whole or not at all; folders above it are made. `keep_mode`: with the permissions of the old one.

    OSError passes through, and no draft is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_bytes(content)
        if keep_mode and path.exists():
            shutil.copymode(path, draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
