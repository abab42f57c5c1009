"""Frames on the wire <-> header, parent, body and buffers: the only code that touches bytes.

    b"FP1" | header JSON | parent JSON | body JSON | buffer*

Decides how large each frame may be and refuses a larger one before anything in it is parsed. A ROUTER's identity
frame is taken off before and put on after. Nothing here is executed, imported or unpickled.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from host_bridge.errors import FaceplateError, RequestError, ServerError

PROTOCOL = "1.0"
MAGIC = b"FP1"

_ID = re.compile(r"[0-9a-f]{32}\Z")
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})\Z")
_MAGIC = re.compile(rb"FP(\d{1,4})\Z")


@dataclass(frozen=True)
class Limits:
    """Largest frame sizes in bytes, and how many buffers may follow a body."""

    header: int = 4096
    body: int = 4 << 20
    buffer: int = 64 << 20
    buffers: int = 4


REQUEST_LIMITS = Limits(body=4 << 20, buffer=0, buffers=0)
REPLY_LIMITS = Limits(body=16 << 20)


@dataclass(frozen=True)
class Header:
    """Who says what. `id` and `session`: 32 hex digits; `seq` counts the session's messages; `time`: Unix seconds."""

    id: str
    session: str
    seq: int
    type: str
    protocol: str = PROTOCOL
    time: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Envelope:
    """One message. `parent` is the header being answered, None for what nobody asked for."""

    header: Header
    parent: Header | None
    body: dict[str, Any]
    buffers: tuple[bytes, ...] = field(default=())


class Pen:
    """Writes headers for one session. Not thread-safe: one owner."""

    def __init__(self, session: str = "") -> None:
        self.session = session or new_id()
        self._seq = 0

    def header(self, type_: str, message_id: str = "") -> Header:
        """The next header; a retry passes the id of the message it repeats."""
        self._seq += 1
        return Header(message_id or new_id(), self.session, self._seq, type_, PROTOCOL, time.time())


def new_id() -> str:
    """A fresh message, session or job id: 32 hex digits."""
    return uuid.uuid4().hex


def is_id(text: str) -> bool:
    """Whether `text` is 32 lower-case hex digits."""
    return bool(_ID.match(text))


def pack(envelope: Envelope, limits: Limits = REPLY_LIMITS) -> list[bytes]:
    """Frames to send. RequestError (`request.too_large`) when the receiver would refuse one."""
    parent = envelope.parent.to_json() if envelope.parent else None
    frames = [
        MAGIC,
        _dump(envelope.header.to_json()),
        _dump(parent),
        _dump(envelope.body),
        *envelope.buffers,
    ]
    check_sizes(frames, limits)
    return frames


def unpack(frames: Sequence[bytes], limits: Limits = REQUEST_LIMITS) -> Envelope:
    """Decode a message.

    Raises RequestError (`request.too_large`, `request.malformed`) and ServerError (`request.version`); when the
    header could be read, the error's `value` is left for the message's content and `header_of` finds the header.
    """
    check_sizes(frames, limits)
    check_magic(frames)
    if len(frames) < 4:
        raise malformed(f"a message has at least 4 frames, this one has {len(frames)}")
    header = _header(_load(frames[1], "header"))
    check_version(header)
    parent_fields = _load(frames[2], "parent")
    parent = None if parent_fields in (None, {}) else _header(parent_fields)
    body = _load(frames[3], "body")
    if not isinstance(body, dict):
        raise malformed(f"the body is a {type(body).__name__}, not an object")
    return Envelope(header, parent, body, tuple(frames[4:]))


def header_of(frames: Sequence[bytes], limits: Limits = REQUEST_LIMITS) -> Header | None:
    """The header of a message that could not be decoded as a whole, so that it can be answered; None if hopeless."""
    if len(frames) < 2 or len(frames[1]) > limits.header:
        return None
    try:
        return _header(_load(frames[1], "header"))
    except FaceplateError:
        return None


def check_sizes(frames: Sequence[bytes], limits: Limits) -> None:
    """RequestError (`request.too_large`) if any frame, or their number, is over the limits."""
    if len(frames) > 4 + limits.buffers:
        raise _too_large("number of frames", len(frames), 4 + limits.buffers)
    allowed = (16, limits.header, limits.header, limits.body)
    for index, frame in enumerate(frames):
        limit = allowed[index] if index < 4 else limits.buffer
        if len(frame) > limit:
            name = ("magic", "header", "parent", "body")[index] if index < 4 else f"buffer {index - 4}"
            raise _too_large(f"{name} frame", len(frame), limit)


def check_magic(frames: Sequence[bytes]) -> None:
    """RequestError unless the first frame says FP1; another major version is told apart from noise."""
    first = bytes(frames[0]) if frames else b""
    if first == MAGIC:
        return
    match = _MAGIC.match(first)
    if match:
        raise version_error(f"{int(match.group(1))}.0")
    raise malformed(f"the first frame is {first[:16]!r}, not {MAGIC!r}")


def check_version(header: Header) -> None:
    """Refuse another major version; minor versions add fields with defaults and are compatible."""
    if header.protocol.partition(".")[0] != PROTOCOL.partition(".")[0]:
        raise version_error(header.protocol)


def version_error(theirs: str, *, their_role: str = "client") -> FaceplateError:
    """`request.version`: names both versions and which side to upgrade."""
    our_role = "server" if their_role == "client" else "client"
    older = their_role if _major(theirs) < _major(PROTOCOL) else our_role
    return RequestError(
        "request.version",
        f"the {their_role} speaks protocol {theirs}, the {our_role} {PROTOCOL}",
        value=theirs,
        remedy=f"Upgrade the {older}.",
    )


def malformed(why: str) -> RequestError:
    """`request.malformed` with the reason."""
    return RequestError("request.malformed", why, remedy="See host_bridge/PROTOCOL.md for the message format.")


def refused_key(endpoint: str, server_key: str) -> ServerError:
    """`server.wrong_key`, naming the key: what a failed CURVE handshake becomes on the client's side."""
    return ServerError(
        "server.wrong_key",
        f"the server at {endpoint} did not complete the handshake with server key {server_key!r}",
        value=server_key,
        remedy="Use the connection file or certificates of the server that runs now; "
        "ask its administrator to admit this client's public key.",
    )


def _major(version: str) -> int:
    match = _VERSION.match(version)
    return int(match.group(1)) if match else 0


def _header(fields: Any) -> Header:
    if not isinstance(fields, dict):
        raise malformed(f"the header is a {type(fields).__name__}, not an object")
    wanted = {"id": str, "session": str, "seq": int, "type": str, "protocol": str, "time": (int, float)}
    for name, kind in wanted.items():
        value = fields.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
            raise malformed(f"the header's {name} is {value!r:.60}")
    header = Header(**{name: fields[name] for name in wanted})
    if not (is_id(header.id) and is_id(header.session)):
        raise malformed("the header's id and session must be 32 lower-case hex digits")
    if not _TYPE.match(header.type) or not _VERSION.match(header.protocol) or not 0 <= header.seq < 1 << 62:
        raise malformed(f"the header's type {header.type!r:.60}, protocol {header.protocol!r:.60} or seq is not valid")
    return header


def _dump(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _load(frame: bytes, what: str) -> Any:
    try:
        return json.loads(bytes(frame).decode("utf-8"), parse_constant=_no_constant, parse_int=_bounded_int)
    except (ValueError, RecursionError) as error:
        raise malformed(f"the {what} frame is not JSON: {error!s:.80}") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _bounded_int(text: str) -> int:
    if len(text) > 20:
        raise ValueError("a whole number of more than 20 digits")
    return int(text)


def _too_large(what: str, size: int, limit: int) -> RequestError:
    return RequestError(
        "request.too_large",
        f"{what} is {size}, the limit is {limit}",
        value=size,
        remedy="Send less at once, or raise the server's message limits.",
    )
