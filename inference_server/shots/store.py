"""The shot store: analysis kept by content, shared by every later render of any part of a shot.

A shot's id is a hash of its frames' contents (size, header and sampled data; never path or time), the colour
settings its analysis saw and the analysis version, so the same plate has the same id on every machine. Below the
root, each shot is a plain folder, published by one rename:

    <id>/shot.json          frames and their digests, settings, revision, repairs, lock: what `ShotRecord` holds
    <id>/analysis-<n>.npz   the analysis of revision n (a repair makes the next one); the first, the newest and the one
                            before it (which somebody may just be reading) are kept
    <id>/effects/           what effects learned of the shot (shots/effectdata.py)
    <id>/pins/              one file per job in progress, touched while it runs
    .locks/                 one writer per shot, and one at a time who changes its record

Safe to share on NFS: no advisory locks, no database, readers need no lock.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
import time
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from host_bridge.errors import ShotError, unknown_name
from inference_server.shots.locks import STORE_REMEDY, FolderLock, alive
from inference_server.shots.packing import ShotOutline, outline, pack, unpack, write_arrays, write_text
from inference_server.shots.records import AnalysisSettings, FrameDigests, ShotRecord, shot_identity
from inference_server.shots.types import ANALYSIS_VERSION, ShotAnalysis

__all__ = ["PIN_STALE_S", "AnalysisSettings", "FrameDigests", "ShotRecord", "ShotStore", "shot_identity"]

Content = TypeVar("Content")

PIN_STALE_S = 15 * 60.0
_CHANGE_S = 30.0


class ShotStore:
    """Shots below `root`. `quota_bytes` 0 means no limit."""

    def __init__(self, root: Path, quota_bytes: int = 0) -> None:
        self.root = root
        self._quota = quota_bytes
        self.digests = FrameDigests()
        self._records: dict[str, tuple[tuple[int, int], ShotRecord]] = {}

    # -- finding ---------------------------------------------------------------------------------------------------

    def records(self) -> list[ShotRecord]:
        """All readable shots, oldest first."""
        found = []
        for file in self._files():
            with contextlib.suppress(ShotError, FileNotFoundError):  # one bad or vanishing shot hides no other
                found.append(self._record(file))
        return sorted(found, key=lambda r: (r.created, r.id))

    def get(self, shot_id: str) -> ShotRecord:
        """The shot of that id or unique prefix; ShotError `shot.unknown` otherwise."""
        records = self.records()
        found = [r for r in records if r.id == shot_id] or [r for r in records if r.id.startswith(shot_id or "?")]
        if not found:
            raise unknown_name("shot.unknown", "shot", shot_id, [r.id for r in records])
        if len(found) > 1:
            raise ShotError(
                "shot.unknown",
                f"{len(found)} shots begin with {shot_id!r}",
                value=shot_id,
                remedy=f"Write more of the id: {', '.join(r.id for r in found[:10])}.",
            )
        return found[0]

    def damaged(self) -> dict[str, ShotError]:
        """Folders of shots whose record cannot be read, and why."""
        found = {}
        for file in self._files():
            try:
                self._record(file)
            except ShotError as error:
                found[file.parent.name] = error
            except FileNotFoundError:  # removed meanwhile
                continue
        return found

    def find(
        self, settings: AnalysisSettings, wanted: Mapping[int, str], shot_frames: tuple[int, ...] | None
    ) -> ShotRecord | None:
        """The shot that holds all `wanted` frames with these digests.

        `shot_frames` given: exactly those frames. Otherwise the widest shot that was not narrowed, the oldest of
        equals, so that frames which appear later do not change what earlier frames are rendered with. An
        approved (locked) shot is found whatever analysis version made it.
        """
        best: ShotRecord | None = None
        for record in self.records():
            if record.settings != settings or not (record.locked or record.version == ANALYSIS_VERSION):
                continue
            if shot_frames is None and record.narrowed:
                continue
            if shot_frames is not None and tuple(sorted(record.frames)) != shot_frames:
                continue
            if any(record.frames.get(frame) != digest for frame, digest in wanted.items()):
                continue
            if best is None or (record.locked, len(record.frames)) > (best.locked, len(best.frames)):
                best = record
        return best

    def check_current(self, record: ShotRecord, wanted: Mapping[int, str]) -> None:
        """Raise ShotError unless `wanted` frames are of the shot and unchanged on disk."""
        outside = sorted(set(wanted) - set(record.frames))
        if outside:
            raise ShotError(
                "shot.stale",
                f"frames {_listed(outside)} are not part of shot {record.id}",
                value=outside[:20],
                frame=outside[0],
                remedy="Run `faceplate analyze` again and use the id it prints, or leave --shot out.",
            )
        changed = sorted(f for f, digest in wanted.items() if record.frames[f] != digest)
        if changed:
            raise ShotError(
                "shot.stale",
                f"frames {_listed(changed)} have changed since shot {record.id} was analysed",
                value=changed[:20],
                frame=changed[0],
                remedy="Run `faceplate analyze` again, or leave --shot out.",
            )

    # -- reading and writing ---------------------------------------------------------------------------------------

    def load(self, record: ShotRecord) -> ShotAnalysis:
        """The shot's analysis. ShotError `shot.corrupt` when the files cannot be read."""
        return self._read(record, lambda arrays: unpack({name: arrays[name] for name in arrays}))

    def load_found(self, record: ShotRecord) -> ShotAnalysis:
        """The analysis as it was found, before any repair."""
        return self.load(replace(record, revision=0))

    def outline(self, record: ShotRecord) -> ShotOutline:
        """The shot's analysis without meshes and maps. ShotError `shot.corrupt` as `load`."""
        return self._read(record, outline)

    def writer(self, key: str) -> FolderLock:
        """The lock under which a shot is made or repaired; `acquire()` it before work that others would repeat.

        ShotError `shot.store`, here or from `acquire()`, where the store cannot be written.
        """
        folder = self.root / ".locks"
        self._make(folder)
        return FolderLock(folder / f"{key}.lock")

    def publish(
        self,
        analysis: ShotAnalysis,
        digests: Mapping[int, str],
        settings: AnalysisSettings,
        *,
        narrowed: bool,
        pattern: str,
        repairs: Mapping[str, Any] | None = None,
    ) -> ShotRecord:
        """Store a finished analysis under its content's id; if another writer was first, theirs is returned."""
        shot_id = shot_identity(digests, settings)
        final = self.root / shot_id
        record = ShotRecord(
            shot_id,
            dict(digests),
            settings,
            narrowed=narrowed,
            pattern=pattern,
            created=time.time(),
            repairs=dict(repairs or {}),
        )
        draft = self.root / f".draft-{shot_id}-{uuid.uuid4().hex}"
        self._make(draft / "pins")
        try:
            write_arrays(draft / "analysis-0.npz", pack(analysis))
            write_text(draft / "shot.json", record.to_text())
            os.rename(draft, final)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if (final / "shot.json").is_file():
                return self._record(final / "shot.json")
            raise self._unwritable(error) from error
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        self.evict(keep=shot_id)
        return record

    def revise(
        self, record: ShotRecord, analysis: ShotAnalysis, repairs: Mapping[str, Any], pattern: str = ""
    ) -> ShotRecord:
        """Replace a shot's analysis by a repaired one: same id, next revision. `pattern` is where the plate lies now.

        ShotError where the shot has been locked, removed or repaired by another since `record` was read.
        """
        folder = self.root / record.id
        with self._changing(record.id):
            current = self.current(record)
            self.refuse_locked(current)
            if current.revision != record.revision:
                raise ShotError(
                    "shot.busy",
                    f"shot {record.id} has been repaired by another process meanwhile",
                    value=record.id,
                    remedy="Look at it with `faceplate shots show` and repair it again.",
                )
            revised = replace(
                current, revision=record.revision + 1, repairs=dict(repairs), pattern=pattern or current.pattern
            )
            try:
                write_arrays(folder / f"analysis-{revised.revision}.npz", pack(analysis))
                self._store(revised)
            except OSError as error:
                raise self._unwritable(error) from error
            kept = {0, record.revision, revised.revision}
            for file in (*folder.glob("analysis-*.npz"), *folder.glob(".analysis-*")):  # and drafts of the killed
                if file.name not in {f"analysis-{n}.npz" for n in kept}:
                    file.unlink(missing_ok=True)
        self.evict(keep=record.id)
        return revised

    def set_locked(self, record: ShotRecord, locked: bool) -> ShotRecord:
        """Approve a shot (its analysis is then kept through upgrades and never evicted), or release it."""
        with self._changing(record.id):
            changed = replace(self.current(record), locked=locked)
            try:
                self._store(changed)
            except OSError as error:
                raise self._unwritable(error) from error
        return changed

    def current(self, record: ShotRecord) -> ShotRecord:
        """The record as it is on disk now. ShotError `shot.unknown` where it has been removed."""
        self._records.pop(record.id, None)
        try:
            return self._record(self.root / record.id / "shot.json")
        except FileNotFoundError as error:
            raise ShotError(
                "shot.unknown",
                f"shot {record.id} has been removed",
                value=record.id,
                remedy="Run `faceplate analyze` again.",
            ) from error

    def remove(self, record: ShotRecord) -> None:
        """Delete a shot; ShotError where it is locked or in use."""
        with self._changing(record.id):
            self.refuse_locked(self.current(record))
            self.discard(record.id)

    def discard(self, shot_id: str) -> None:
        """Delete a shot's folder whatever its record says; ShotError `shot.busy` where it is in use."""
        if self.pinned(shot_id):
            raise ShotError(
                "shot.busy",
                f"shot {shot_id} is in use by a job",
                value=shot_id,
                remedy="Wait for the job or cancel it with `faceplate jobs cancel`.",
            )
        try:
            self._discard(shot_id)
        except OSError as error:
            raise self._unwritable(error) from error

    # -- use -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def pin(self, shot_id: str) -> Iterator[Path | None]:
        """Keep a shot from eviction and removal while a job needs it; the pin is kept fresh by a thread of its own.

        Yields None on a store that may only be read: nothing can be evicted through it either.
        """
        folder = self.root / shot_id / "pins"
        pin = folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
        try:
            folder.mkdir(exist_ok=True)
            pin.touch()
            os.utime(self.root / shot_id)
        except OSError:
            yield None
            return
        done = threading.Event()
        beat = threading.Thread(target=_keep_fresh, args=(pin, done), name="faceplate-pin", daemon=True)
        beat.start()
        try:
            yield pin
        finally:
            done.set()
            beat.join()
            pin.unlink(missing_ok=True)

    def pinned(self, shot_id: str) -> bool:
        """Whether a job on any machine is using the shot."""
        now = time.time()
        for pin in (self.root / shot_id / "pins").glob("*"):
            host, _, rest = pin.name.rpartition("-")[0].rpartition("-")
            if host == socket.gethostname() and rest.isdigit() and not alive(int(rest)):
                continue
            with contextlib.suppress(FileNotFoundError):
                if now - pin.stat().st_mtime < PIN_STALE_S:
                    return True
        return False

    def used(self, shot_id: str) -> float:
        """When the shot was made or last used by a job, seconds since 1970; 0 where it is gone."""
        try:
            return (self.root / shot_id).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def size_of(self, shot_id: str) -> int:
        """Bytes a shot takes."""
        total = 0
        for file in (self.root / shot_id).rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a draft that was just published
                total += file.stat().st_size if file.is_file() else 0
        return total

    def evict(self, keep: str = "") -> list[str]:
        """Remove the least recently used shots until the quota holds; locked, pinned and `keep` stay, and so do another
        user's that may not be removed.
        """
        if not self._quota:
            return []
        records = self.records()
        sizes = {r.id: self.size_of(r.id) for r in records}
        total, gone = sum(sizes.values()), []
        for record in sorted(records, key=lambda r: self.used(r.id)):
            if total <= self._quota:
                break
            if record.locked or record.id == keep or self.pinned(record.id):
                continue
            try:
                self._discard(record.id)
            except PermissionError:
                continue
            total -= sizes[record.id]
            gone.append(record.id)
        return gone

    # -- inside ----------------------------------------------------------------------------------------------------

    def _files(self) -> list[Path]:
        return sorted(self.root.glob("[0-9a-f]*/shot.json"))

    def _read(self, record: ShotRecord, take: Callable[[Mapping[str, Any]], Content]) -> Content:
        path = self.root / record.id / f"analysis-{record.revision}.npz"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return take(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ShotError(
                "shot.corrupt",
                f"the analysis of shot {record.id} cannot be read: {error}",
                path=str(path),
                remedy=f"Run `faceplate shots remove {record.id}` and render again.",
            ) from error

    @contextlib.contextmanager
    def _changing(self, shot_id: str) -> Iterator[None]:
        """Alone while a shot's record changes, which takes moments."""
        lock = self.writer(f"{shot_id}.record")
        deadline = time.monotonic() + _CHANGE_S
        while not lock.acquire():
            if time.monotonic() > deadline:
                raise ShotError(
                    "shot.busy",
                    f"another process is changing shot {shot_id}",
                    value=shot_id,
                    remedy="Try again in a moment.",
                )
            lock.wait(0.02)
        with lock:
            yield

    def _record(self, file: Path) -> ShotRecord:
        status = file.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        known = self._records.get(file.parent.name)
        if known and known[0] == stamp:
            return known[1]
        try:
            record = ShotRecord.from_text(file.read_text())
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ShotError(
                "shot.corrupt",
                f"the record of shot {file.parent.name} cannot be read: {error}",
                path=str(file),
                remedy=f"Run `faceplate shots remove {file.parent.name}` and analyse the shot again.",
            ) from error
        self._records[file.parent.name] = (stamp, record)
        return record

    def _store(self, record: ShotRecord) -> None:
        write_text(self.root / record.id / "shot.json", record.to_text())

    def _discard(self, shot_id: str) -> None:
        trash = self.root / f".trash-{shot_id}-{uuid.uuid4().hex}"
        try:
            os.rename(self.root / shot_id, trash)
        except FileNotFoundError:  # another process was first
            return
        shutil.rmtree(trash, ignore_errors=True)

    def refuse_locked(self, record: ShotRecord) -> None:
        """Raise ShotError `shot.locked` where the shot is."""
        if record.locked:
            raise ShotError(
                "shot.locked",
                f"shot {record.id} is locked",
                value=record.id,
                remedy=f"Release it with `faceplate shots lock {record.id} --off`.",
            )

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ShotError:
        return ShotError(
            "shot.store",
            f"the shot store cannot be written: {error.strerror or error}",
            path=str(self.root),
            remedy=STORE_REMEDY,
        )


def _listed(frames: list[int]) -> str:
    return ", ".join(map(str, frames[:6])) + (" ..." if len(frames) > 6 else "")


def _keep_fresh(pin: Path, done: threading.Event) -> None:
    while not done.wait(PIN_STALE_S / 5):
        with contextlib.suppress(OSError):  # a server that is away for a moment; the next beat tries again
            os.utime(pin)
