"""Decides where imported models lie, which of several folders wins, and how a model gets in and out in one step.

A model is two files side by side: `<id>.<sha256, 12 digits>.safetensors` and `<id>.toml`, the card with what was
stored. The card is written last and replaced atomically; until then the model does not exist, and a crash leaves at
most a weights file that no card names. Folders are searched in order and the first one that has an id wins. Only one
of them, the user's own, is ever written. Needs no torch.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import tomli_w
from msgspec import Struct

from host_bridge.errors import FaceplateError, ModelError
from host_bridge.locks import FileLock
from inference_server.models.cards import (
    CARD_FORMAT,
    Card,
    card_to_table,
    check_card,
    official_cards,
    read_toml,
    unknown_model,
)

ENVIRONMENT = "FACEPLATE_MODELS"
BUILT_IN = Path(__file__).parent / "builtin"
"""The models that come with Faceplate, searched last, never written."""
_CHUNK = 1 << 20
_LOCK_SECONDS = 60.0


class Stored(Struct, frozen=True, forbid_unknown_fields=True):
    """What was made of the authors' file. `kept` and `dropped` count values of networks; `code_names` are the names
    of style codes, in order; `licence_accepted` says that non-commercial terms were shown and accepted.
    """

    file: str
    bytes: int
    sha256: str
    source_file: str
    source_sha256: str
    kept: int = 0
    dropped: int = 0
    code_names: tuple[str, ...] = ()
    licence_accepted: bool = False


@dataclass(frozen=True)
class Folder:
    """A model folder. The user's own is writable; a studio's is only read."""

    path: Path
    writable: bool = False

    @property
    def built_in(self) -> bool:
        """Whether it is the one that comes with Faceplate."""
        return self.path == BUILT_IN


@dataclass(frozen=True)
class StoredModel:
    """An imported model: its card, its safetensors file and the hash that goes into a picture's metadata."""

    card: Card
    stored: Stored
    folder: Folder

    @property
    def id(self) -> str:
        return self.card.id

    @property
    def path(self) -> Path:
        return self.folder.path / self.stored.file

    @property
    def sha256(self) -> str:
        return self.stored.sha256

    @property
    def built_in(self) -> bool:
        """Whether it comes with Faceplate."""
        return self.folder.built_in

    @property
    def licence(self) -> str:
        """The licences' names in one line; says "(non-commercial)" where that is so."""
        return self.card.licence


def sha256_of(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def user_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where this platform keeps an application's data, `/models` below it."""
    env = os.environ if environment is None else environment
    home = Path(env.get("HOME") or Path.home())
    if sys.platform == "win32":
        base = Path(env.get("LOCALAPPDATA") or home / "AppData" / "Local") / "Faceplate"
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support" / "Faceplate"
    else:
        base = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share") / "faceplate"
    return base / "models"


def _can_write(path: Path) -> bool:
    while not path.exists():
        if path.parent == path:
            return False
        path = path.parent
    return path.is_dir() and os.access(path, os.W_OK | os.X_OK)


def folders_from(environment: Mapping[str, str] | None = None) -> tuple[Folder, ...]:
    """The folders of FACEPLATE_MODELS in their order; the first that can be written is the user's own.

    Without the variable, or when none of its folders can be written, the platform's folder is (also) used. What comes
    with Faceplate is last.
    """
    env = os.environ if environment is None else environment
    listed = [Path(p).expanduser() for p in env.get(ENVIRONMENT, "").split(os.pathsep) if p.strip()]
    own = next((path for path in listed if _can_write(path)), None)
    folders = [Folder(path, path == own) for path in dict.fromkeys(listed)]
    if own is None:
        folders.append(Folder(user_folder(env), True))
    return (*folders, Folder(BUILT_IN))


def store_of(folders: Sequence[str], *, writable: bool = False) -> ModelStore:
    """The store of a server's configured model folders; the environment's where it names none.

    The models that come with Faceplate are in either. The folders are only read, or else (`writable`) the first of them
    that can be written is.
    """
    paths = [Path(folder) for folder in folders]
    own = next((path for path in paths if _can_write(path)), None) if writable else None
    return ModelStore((*(Folder(path, path == own) for path in paths), Folder(BUILT_IN)) if paths else None)


class ModelStore:
    """Imported models in one or several folders."""

    def __init__(self, folders: tuple[Folder, ...] | None = None) -> None:
        """`folders` in order of precedence, at most one of them writable; by default those of the environment."""
        self.folders = folders_from() if folders is None else folders
        if sum(folder.writable for folder in self.folders) > 1:
            raise ValueError(f"expected at most one writable model folder, got {self.folders}")

    # ------------------------------------------------------------------------------------------------ reading

    def models(self) -> dict[str, StoredModel]:
        """Every model by id, taken from the first folder that has it. Cards that cannot be read are left out."""
        found: dict[str, StoredModel] = {}
        for folder in self.folders:
            for path in _card_files(folder):
                if path.stem in found:
                    continue
                try:
                    found[path.stem] = _read_stored(folder, path)
                except ModelError:
                    continue  # `problems` reports it
        return found

    def problems(self) -> list[ModelError]:
        """What is wrong with the stored models that `models` leaves out, or that lack their weights."""
        out: list[ModelError] = []
        for folder in self.folders:
            for path in _card_files(folder):
                try:
                    model = _read_stored(folder, path)
                except ModelError as error:
                    out.append(error)
                    continue
                if not model.path.is_file():
                    out.append(_stored_error(model.path, f"the weights of {model.id!r} are missing"))
        return out

    def shadowed(self) -> list[StoredModel]:
        """Models that another folder hides because it comes first."""
        out: list[StoredModel] = []
        seen: set[str] = set()
        for folder in self.folders:
            for path in _card_files(folder):
                if path.stem in seen:
                    try:
                        out.append(_read_stored(folder, path))
                    except ModelError:
                        continue  # `problems` reports it
                seen.add(path.stem)
        return out

    def get(self, model_id: str) -> StoredModel:
        """The imported model of that id.

        Raises ModelError: `model.not_imported` for a known card, `model.unknown` for an id nobody knows,
        `model.stored` when its files cannot be used.
        """
        for folder in self.folders:
            path = folder.path / f"{model_id}.toml"
            if path.is_file() and "/" not in model_id and os.sep not in model_id:
                model = _read_stored(folder, path)
                if not model.path.is_file():
                    raise _stored_error(model.path, f"the weights of {model_id!r} are missing")
                return model
        cards = {card.id: card for card in official_cards()}
        if model_id not in cards:
            raise unknown_model(model_id, list(self.models()))
        raise not_imported(cards[model_id])

    def __contains__(self, model_id: str) -> bool:
        return any((folder.path / f"{model_id}.toml").is_file() for folder in self.folders)

    def verify(self, model_id: str) -> StoredModel:
        """Hash the model's weights again; ModelError `model.stored` when they are not what was stored."""
        model = self.get(model_id)
        try:
            size, digest = model.path.stat().st_size, sha256_of(model.path)
        except OSError as error:
            raise _stored_error(model.path, f"the weights of {model_id!r} cannot be read ({error.strerror})") from error
        if (size, digest) != (model.stored.bytes, model.sha256):
            raise _stored_error(
                model.path,
                f"the weights of {model_id!r} have changed: expected {model.stored.bytes} bytes with sha256 "
                f"{model.sha256}, got {size} bytes with {digest}",
            )
        return model

    # ------------------------------------------------------------------------------------------------ writing

    @property
    def own(self) -> Folder:
        """The folder that is written; ModelError `model.folder` when there is none."""
        for folder in self.folders:
            if folder.writable:
                return folder
        raise ModelError(
            "model.folder",
            "no model folder can be written: " + ", ".join(str(folder.path) for folder in self.folders),
            remedy=f"Put a folder of your own first in {ENVIRONMENT}.",
        )

    def check_free(self, model_id: str) -> None:
        """ModelError `model.exists` when the user's own folder has that model already."""
        if (self.own.path / f"{model_id}.toml").is_file():
            raise ModelError(
                "model.exists",
                f"{model_id!r} is already imported",
                value=model_id,
                path=str(self.own.path),
                remedy="Say --replace to import it anew, or remove it first.",
            )

    def add(
        self, card: Card, write: Callable[[Path], None], stored: Mapping[str, Any], *, replace: bool = False
    ) -> StoredModel:
        """Store a model: `write` fills a temporary file, then file and card take their place atomically.

        `stored` are the fields of `Stored` that describe the source. Raises ModelError `model.exists`,
        `model.folder`; whatever `write` raises passes through, and nothing is left behind.
        """
        folder = self.own
        with _locked(folder):
            if not replace:
                self.check_free(card.id)
            _remove_drafts(folder.path)
            with _temporary(folder.path, ".safetensors") as draft:
                write(draft)
                digest = sha256_of(draft)
                done = Stored(
                    file=f"{card.id}.{digest[:12]}.safetensors",
                    bytes=draft.stat().st_size,
                    sha256=digest,
                    **stored,
                )
                _publish(draft, folder.path / done.file)
            table = {**card_to_table(card), "stored": msgspec.to_builtins(done)}
            with _temporary(folder.path, ".toml") as draft:
                draft.write_bytes(tomli_w.dumps(table).encode("utf-8"))
                _publish(draft, folder.path / f"{card.id}.toml")
            _remove_weights(folder.path, card.id, keep=done.file)
        return StoredModel(card, done, folder)

    def remove(self, model_id: str) -> Path:
        """Take a model out of the user's own folder; the path of its card.

        Raises ModelError `model.folder` when only a studio folder has it, `model.not_imported`, `model.unknown`.
        """
        folder = self.own
        path = folder.path / f"{model_id}.toml"
        if model_id not in {p.stem for p in _card_files(folder)}:
            model = self.get(model_id)
            if model.built_in:
                raise ModelError(
                    "model.folder",
                    f"{model_id!r} comes with Faceplate and stays",
                    value=model_id,
                    path=str(model.path),
                    remedy=f"A model of that id in a folder of your own ({self.own.path}) takes its place.",
                )
            raise ModelError(
                "model.folder",
                f"{model_id!r} lies in {model.folder.path}, which is not yours to change",
                value=model_id,
                path=str(model.path),
                remedy="Ask whoever looks after that folder.",
            )
        with _locked(folder):
            path.unlink(missing_ok=True)
            _remove_weights(folder.path, model_id, keep="")
        return path


def not_imported(card: Card) -> ModelError:
    """The error for a model that is known and not there; the remedy says how to get it."""
    if card.not_imported:
        return ModelError(
            "model.unsupported",
            f"{card.id!r} is listed only: {card.not_imported}",
            value=card.id,
            remedy="Nothing has to be imported.",
        )
    how = f"`faceplate models pull {card.id}`" if card.hub else f"`faceplate models show {card.id}` says where from"
    return ModelError(
        "model.not_imported",
        f"the model {card.id!r} ({card.title}) is not imported",
        value=card.id,
        remedy=f"Get it: {how}; a file you have already: `faceplate models import FILE --id {card.id}`.",
    )


def _stored_error(path: Path, problem: str) -> ModelError:
    return ModelError(
        "model.stored", problem, path=str(path), remedy="Import the model again with --replace, or remove it."
    )


def _card_files(folder: Folder) -> Iterator[Path]:
    if folder.path.is_dir():
        yield from sorted(p for p in folder.path.glob("*.toml") if not p.name.startswith("."))


def _read_stored(folder: Folder, path: Path) -> StoredModel:
    try:
        table = read_toml(path)
        if table.get("format", CARD_FORMAT) > CARD_FORMAT:
            raise _stored_error(path, f"the card has format {table['format']}, newer than {CARD_FORMAT}")
        stored = msgspec.convert(table.pop("stored", {}), Stored)
        card = check_card(msgspec.convert(table, Card), str(path))
    except OSError as error:
        raise _stored_error(path, f"the card cannot be read ({error.strerror})") from error
    except FaceplateError:
        raise
    except (ValueError, TypeError) as error:
        raise _stored_error(path, f"the card cannot be used: {error}") from error
    if card.id != path.stem or Path(stored.file).name != stored.file:
        raise _stored_error(path, f"the card is that of {card.id!r} and its file {stored.file!r}")
    return StoredModel(card, stored, folder)


@contextmanager
def _locked(folder: Folder) -> Iterator[None]:
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.path / ".lock")
        if not lock.acquire(_LOCK_SECONDS):
            raise _unwritable(folder, "another process has been writing to it for a minute")
        with lock:
            yield
    except OSError as error:
        raise _unwritable(folder, str(error.strerror or error)) from error


def _unwritable(folder: Folder, why: str) -> ModelError:
    return ModelError(
        "model.folder",
        f"the model folder cannot be written: {why}",
        path=str(folder.path),
        remedy=f"Free space or permissions there, or name another folder in {ENVIRONMENT}.",
    )


@contextmanager
def _temporary(folder: Path, suffix: str) -> Iterator[Path]:
    """A hidden file in the folder that is gone afterwards, unless it was moved."""
    handle, name = tempfile.mkstemp(prefix=".", suffix=f".tmp{suffix}.part", dir=folder)
    os.close(handle)
    path = Path(name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _publish(draft: Path, target: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    with draft.open("rb+") as stream:
        os.fsync(stream.fileno())
    draft.chmod(0o666 & ~umask)  # mkstemp makes it private; a studio folder is for its group
    os.replace(draft, target)


def _remove_drafts(folder: Path) -> None:
    """What a killed process left; nobody else is writing while the lock is held."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def _remove_weights(folder: Path, model_id: str, keep: str) -> None:
    for path in folder.glob(f"{model_id}.*.safetensors"):
        if path.name != keep:
            path.unlink(missing_ok=True)
