"""Writes the tables of PROTOCOL.md from the code: `python -m host_bridge.protocol_doc` (`--check` only compares).

The text between the tables is written by people; what stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is
replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from host_bridge import envelope
from host_bridge import messages as m
from host_bridge.errors import CODES
from host_bridge.jobspec import JobSpec, MaskSpec, PlateSpec, PreviewSpec

DOCUMENT = Path(__file__).with_name("PROTOCOL.md")


def render(text: str) -> str:
    """The document with its tables brought up to date; ValueError if one of them has no place."""
    for name, table in tables().items():
        pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"PROTOCOL.md has no place for the table {name!r}")
        text = pattern.sub(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
    return text


def tables() -> dict[str, str]:
    """Table name -> Markdown."""
    return {
        "version": f"Protocol version **{envelope.PROTOCOL}**, magic `{envelope.MAGIC.decode()}`.",
        "header": _header(),
        "limits": _limits(),
        "overview": _overview(),
        "requests": _messages(m.REQUESTS),
        "answers": _messages(m.ANSWERS),
        "events": _messages(m.EVENTS),
        "types": "\n\n".join(_plain(cls) for cls in (JobSpec, PlateSpec, MaskSpec, PreviewSpec, m.DeviceStatus)),
        "errors": _errors(),
    }


def _header() -> str:
    hints = get_type_hints(envelope.Header)
    rows = [(f"`{f.name}`", _type(hints[f.name])) for f in fields(envelope.Header)]
    return _table(("Field", "Type"), rows)


def _limits() -> str:
    rows = [
        (
            name,
            str(limits.header),
            str(limits.body),
            str(limits.buffers),
            str(limits.buffer),
        )
        for name, limits in (("client to server", envelope.REQUEST_LIMITS), ("server to client", envelope.REPLY_LIMITS))
    ]
    return _table(("Direction", "Header, parent (bytes)", "Body (bytes)", "Buffers", "Each buffer (bytes)"), rows)


def _overview() -> str:
    rows = [(f"`{r.TYPE}`", f"`{r.ANSWER}`", _first(r)) for r in m.REQUESTS]
    return _table(("Request", "Answer", "Purpose"), rows)


def _messages(classes: tuple[type[m.Message], ...]) -> str:
    return "\n\n".join(f"#### `{c.TYPE}`\n\n{_first(c)}\n\n{_fields(c)}" for c in classes)


def _fields(cls: type[Any]) -> str:
    hints = get_type_hints(cls, include_extras=True)
    rows = []
    for item in fields(cls):
        kind, *notes = get_args(hints[item.name]) if hasattr(hints[item.name], "__metadata__") else (hints[item.name],)
        rows.append((f"`{item.name}`", _type(kind), _default(item), str(notes[0]) if notes else ""))
    return _table(("Field", "Type", "Default", "Meaning"), rows) if rows else "No fields."


def _plain(cls: type[Any]) -> str:
    text = " ".join((cls.__doc__ or "").split())
    hints = get_type_hints(cls)
    rows = [(f"`{f.name}`", _type(hints[f.name]), _default(f)) for f in fields(cls)]
    return f"#### {cls.__name__}\n\n{text}\n\n" + _table(("Field", "Type", "Default"), rows)


def _errors() -> str:
    rows = [(f"`{code}`", spec.summary, f"{int(spec.exit_code)}") for code, spec in CODES.items()]
    return _table(("Code", "Meaning", "Exit status"), rows)


def _first(cls: type[Any]) -> str:
    return " ".join((cls.__doc__ or "").split())


def _default(item: Any) -> str:
    if item.default is not MISSING:
        return f"`{item.default!r}`"
    return f"`{item.default_factory()!r}`" if item.default_factory is not MISSING else "required"


def _type(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else re.sub(r"\b[a-z_.]+\.", "", str(kind))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main(arguments: list[str]) -> int:
    written = DOCUMENT.read_text(encoding="utf-8")
    wanted = render(written)
    if written == wanted:
        return 0
    if "--check" in arguments:
        sys.stderr.write("PROTOCOL.md is out of date: run python -m host_bridge.protocol_doc\n")
        return 1
    DOCUMENT.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
