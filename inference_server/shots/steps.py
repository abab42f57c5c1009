"""Results of an effect's long steps, kept in the shot's folder: adapted generators, optimised codes.

    <shot id>/effects/<effect>.<step>-<face>-<hash>/                a finished step
    <shot id>/effects/<effect>.<step>-<face>-<hash>.accepted-<n>/   what a run had that was stopped after n iterations,
                                                                    and that the artist took as it was
    <shot id>/effects/.work-<effect>.<step>-<face>-<hash>/          what a run that is under way, or was killed or
                                                                    cancelled, has so far

The hash is over everything the step depends on, the steps before it included, so that what was made for other values is
never taken. A working folder stays until its step is finished: the same step, asked for again, goes on in it, under the
store's lock of its name. A result is published by one rename and never changed after that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host_bridge.errors import ShotError
from inference_server.effects.steps import RUN, StepResult, read_result
from inference_server.shots.effectdata import data_name, unwritable
from inference_server.shots.locks import FolderLock
from inference_server.shots.packing import write_text
from inference_server.shots.store import ShotRecord, ShotStore

_STEP = "step.json"
_ABANDONED_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class StepKey:
    """A step of one face and everything it depends on.

    shot     the record's key
    learned  what the effect's `analyse` depends on
    after    names of the folders of the steps before it
    values   what the step itself depends on
    """

    effect: str
    version: str
    step: str
    track: int
    shot: str
    learned: Mapping[str, Any]
    after: tuple[str, ...]
    values: Mapping[str, Any]

    @property
    def kind(self) -> str:
        return f"{self.effect}.{self.step}"

    @property
    def depends(self) -> dict[str, Any]:
        """Everything in the hash, as JSON."""
        return {
            "version": self.version,
            "shot": self.shot,
            "learned": dict(self.learned),
            "after": list(self.after),
            "values": dict(self.values),
        }

    @property
    def name(self) -> str:
        """Of the finished step's folder."""
        return data_name(self.shot, self.kind, self.version, self.track, self.depends)


@dataclass(frozen=True)
class TakenStep:
    """A published result. `done` of `wanted` iterations; `digest` is over the files' contents; `depends` as in StepKey.

    `accepted`: its run was stopped, and the artist took what there was. `facts`: see StepResult.
    """

    folder: Path
    done: int
    wanted: int
    accepted: bool
    digest: str
    depends: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


def find_step(store: ShotStore, record: ShotRecord, key: StepKey) -> TakenStep | None:
    """The step taken with just these values: finished, or else the longest that was accepted.

    ShotError `shot.corrupt` where a folder of that name cannot be read.
    """
    folder = store.root / record.id / "effects"
    finished = _read(folder / key.name)
    if finished is not None:
        return finished
    accepted = (_read(path) for path in folder.glob(f"{key.name}.accepted-*"))
    return max((step for step in accepted if step is not None), key=lambda step: step.done, default=None)


def steps_of_kind(store: ShotStore, record: ShotRecord, kind: str, track: int | None = None) -> list[TakenStep]:
    """Every published result of a shot of that kind (`effect.step`), of one face or of all, the newest first."""
    pattern = f"{kind}-{'*' if track is None else track}-*"
    folders = [path for path in (store.root / record.id / "effects").glob(pattern) if path.is_dir()]
    folders.sort(key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    return [step for step in map(_read, folders) if step is not None]


def track_of(step: TakenStep) -> int:
    """The face a result is of."""
    return int(step.folder.name.split("-")[-3 if step.accepted else -2])


def differences(key: StepKey, other: TakenStep) -> list[str]:
    """In what the values differ that `other` was made with, in the artist's words."""
    depends, found = key.depends, other.depends
    names = {"version": "effect version", "shot": "face tracking (the shot was repaired)", "after": "steps before it"}
    out = [text for name, text in names.items() if depends[name] != found.get(name)]
    for group in ("learned", "values"):
        now, before = depends[group], found.get(group, {})
        out += sorted(name.replace("_", " ") for name in {*now, *before} if now.get(name) != before.get(name))
    return out


class Work:
    """A step's working folder; everything but `result` under the step's lock."""

    def __init__(self, store: ShotStore, record: ShotRecord, key: StepKey) -> None:
        self._key = key
        self._parent = store.root / record.id / "effects"
        self.folder = self._parent / f".work-{key.name}"
        self._store = store
        self._shot = record.id

    @property
    def result(self) -> StepResult | None:
        """What a stopped run has that could be used as it is."""
        return read_result(self.folder)

    def lock(self) -> FolderLock:
        return self._store.writer(f"{self._shot}.{self._key.name}")

    def open(self) -> None:
        """Make the folder where it is not there yet."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def drop_if_empty(self) -> None:
        """Leave no folder of a run that came to nothing."""
        with contextlib.suppress(OSError):  # it is not empty, or gone
            self.folder.rmdir()

    def drop_abandoned(self) -> None:
        """Remove what runs of the same step and face with other values left that nobody went on with for a week.

        They hold the shot's pictures, and every change of a strength may leave one.
        """
        prefix = f".work-{self._key.kind}-{self._key.track}-"
        for folder in self._parent.glob(f"{prefix}*"):
            if folder == self.folder or time.time() - folder.stat().st_mtime < _ABANDONED_S:
                continue
            lock = self._store.writer(f"{self._shot}.{folder.name.removeprefix('.work-')}")
            if lock.acquire():
                with lock:
                    shutil.rmtree(folder, ignore_errors=True)

    def publish(self) -> TakenStep:
        """Put the finished step in place."""
        final = self._parent / self._key.name
        try:
            write_text(self.folder / _STEP, self._description(self.folder, accepted=False))
            os.rename(self.folder, final)
        except OSError as error:
            raise unwritable(final, error) from error
        # After the rename: killed before it, the run can go on.
        shutil.rmtree(final / RUN, ignore_errors=True)
        return _published(final)

    def accept(self) -> TakenStep | None:
        """Publish a copy of what a stopped run has as it is, or return None where it has nothing; the run can go on."""
        found = self.result
        if found is None:
            return None
        final = self._parent / f"{self._key.name}.accepted-{found.done}"
        if (final / _STEP).is_file():
            return _published(final)
        draft = self._parent / f".draft-{final.name}-{uuid.uuid4().hex}"
        try:
            shutil.copytree(self.folder, draft, ignore=shutil.ignore_patterns(RUN, _STEP, ".*"))
            write_text(draft / _STEP, self._description(draft, accepted=True))
            os.rename(draft, final)
        except OSError as error:
            raise unwritable(final, error) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return _published(final)

    def _description(self, folder: Path, *, accepted: bool) -> str:
        found = read_result(folder) or StepResult(0, 0)
        facts = {
            "done": found.done,
            "wanted": found.wanted,
            "accepted": accepted,
            "digest": _digest(folder),
            "depends": self._key.depends,
            "facts": dict(found.facts),
        }
        return json.dumps(facts, indent=1, sort_keys=True)


def _published(folder: Path) -> TakenStep:
    found = _read(folder)
    if found is None:
        raise unwritable(folder, FileNotFoundError(errno.ENOENT, "the result has vanished"))
    return found


def _read(folder: Path) -> TakenStep | None:
    try:
        data = json.loads((folder / _STEP).read_text(encoding="utf-8"))
        return TakenStep(
            folder,
            int(data["done"]),
            int(data["wanted"]),
            bool(data["accepted"]),
            str(data["digest"]),
            dict(data["depends"]),
            dict(data["facts"]),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ShotError(
            "shot.corrupt",
            f"what a step of an effect left with the shot cannot be read: {error}",
            path=str(folder / _STEP),
            remedy=f"Remove the folder {folder} and run `faceplate adapt` again.",
        ) from error


def _digest(folder: Path) -> str:
    """16 hex digits over the result's files, its pictures for people left out."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if not path.is_file() or name.parts[0] in (RUN, _STEP) or path.suffix == ".png":
            continue
        digest.update(f"{name.as_posix()} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16]
