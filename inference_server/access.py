"""Who may talk to the server and which files a job may touch.

Every connection is CURVE. Admitted are the local client's key (written to the connection file), the workers' keys,
each for its own socket, and the certificates in a folder that is read again when an unknown key knocks, so that a
client is added without a restart. Paths are judged after `..` and symbolic links are resolved.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import zmq
import zmq.auth

from host_bridge.errors import ServerError
from host_bridge.paths import has_token, token_regex

_log = logging.getLogger("faceplate.access")
_MAX_LISTED = 200_000


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair, Z85."""

    public: bytes
    secret: bytes

    @classmethod
    def fresh(cls) -> KeyPair:
        public, secret = zmq.curve_keypair()
        return cls(public, secret)

    def __repr__(self) -> str:
        return f"KeyPair({self.public!r})"


class Admission:
    """Says which public keys may connect: pyzmq's credentials provider, called on its authentication thread."""

    def __init__(self, folder: Path | None = None) -> None:
        self._keys: frozenset[bytes] = frozenset()
        self._folder = folder

    def admit(self, key: bytes) -> None:
        self._keys |= {key}

    def dismiss(self, key: bytes) -> None:
        self._keys -= {key}

    def callback(self, domain: str, key: bytes) -> bool:
        if key in self._keys or key in self._certified():
            return True
        _log.warning("refused a client with unknown public key %s (%s)", key.decode(errors="replace"), domain)
        return False

    def _certified(self) -> set[bytes]:
        if self._folder is None:
            return set()
        try:
            return {key for key, allowed in zmq.auth.load_certificates(self._folder).items() if allowed}
        except (OSError, ValueError) as error:
            _log.error("cannot read certificates in %s: %s", self._folder, error)
            return set()


def server_keys(folder: Path) -> KeyPair:
    """The server's own certificate from a certificates folder; ServerError (`server.config`) if it is not usable."""
    try:
        public, secret = zmq.auth.load_certificate(folder / "server.key_secret")
        clients = zmq.auth.load_certificates(folder / "clients")
    except (OSError, ValueError) as error:
        raise _bad_certificates(folder, str(error)) from error
    if secret is None:
        raise _bad_certificates(folder, "server.key_secret has no secret key")
    if not clients:
        raise _bad_certificates(folder, "clients/ holds no certificate")
    return KeyPair(public, secret)


def create_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make `name.key` (to give away) and `name.key_secret` (mode 0600) in `folder`; returns both paths."""
    if not re.match(r"[A-Za-z0-9_.-]{1,64}\Z", name):
        raise ServerError(
            "server.config", f"{name!r} cannot name a certificate", value=name, remedy="Use plain letters."
        )
    folder.mkdir(parents=True, exist_ok=True)
    public, secret = zmq.auth.create_certificates(folder, name)
    os.chmod(secret, 0o600)
    return Path(public), Path(secret)


class Roots:
    """The folders that jobs may read and write; no roots means every file the server's account can reach."""

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = tuple(os.path.realpath(r) for r in roots)

    def check(self, path: str) -> str:
        """The path with its folders resolved; ServerError (`server.not_allowed`) if any of it leaves the roots.

        A pattern is judged with every file and folder on disk that it can stand for.
        """
        fixed, rest = _split(path)
        if ".." in rest:
            raise _not_allowed(path, "goes up (..) behind a placeholder", self._roots)
        resolved = os.sep.join([self._check_one(fixed, path), *rest])
        for found in _matches(path) if self._roots else ():
            self._check_one(found, path)
        return resolved

    def _check_one(self, candidate: str, path: str) -> str:
        try:
            resolved = os.path.realpath(candidate)
        except (OSError, ValueError) as error:
            raise _not_allowed(path, f"cannot be resolved: {error}", self._roots) from error
        if not self._roots or any(resolved == r or resolved.startswith(r.rstrip(os.sep) + os.sep) for r in self._roots):
            return resolved
        raise _not_allowed(path, f"leads to {resolved}, outside the folders this server may touch", self._roots)


def resolve_pattern(path: str) -> str:
    """The pattern with `..` and symbolic links of the part before its first placeholder resolved."""
    fixed, rest = _split(path)
    return os.sep.join([os.path.realpath(fixed).rstrip(os.sep), *rest])


def _split(path: str) -> tuple[str, list[str]]:
    """The leading folders without placeholder, and the components from the first one with a placeholder on.

    Not normalised: the parent of a link is not the folder the link is in, and only `realpath` knows.
    """
    parts = path.split(os.sep)
    first = next((i for i, part in enumerate(parts) if has_token(part)), len(parts))
    return os.sep.join(parts[:first]) or os.sep, [part for part in parts[first:] if part not in ("", ".")]


def _matches(path: str) -> Iterator[str]:
    """Links among the existing files and folders that the part behind a pattern's first placeholder can stand for."""
    fixed, rest = _split(path)
    folders = [fixed]
    listed = 0
    for part in rest:
        found: list[str] = []
        for folder in folders:
            if not has_token(part):
                candidate = os.path.join(folder, part)
                if os.path.lexists(candidate):
                    found.append(candidate)
                continue
            regex = token_regex(part)
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        listed += 1
                        if listed > _MAX_LISTED:
                            raise _not_allowed(path, f"stands for more than {_MAX_LISTED} files", ())
                        if regex.match(entry.name):
                            found.append(entry.path)
            except OSError:
                continue  # no such folder yet, or not a folder: nothing there to be judged
        yield from (f for f in found if os.path.islink(f))
        folders = found


def _not_allowed(path: str, why: str, roots: Sequence[str]) -> ServerError:
    return ServerError(
        "server.not_allowed",
        f"the path {why}",
        value=path,
        path=path,
        remedy=f"Use a path under {', '.join(roots)}." if roots else "Use a plainer path.",
    )


def _bad_certificates(folder: Path, why: str) -> ServerError:
    return ServerError(
        "server.config",
        f"certificates in {folder} cannot be used: {why}",
        path=str(folder),
        remedy="It must hold server.key_secret and clients/*.key; make them with zmq.auth.create_certificates.",
    )
