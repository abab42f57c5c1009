"""The shot store: analysis kept by content, shared by every later render of any part of a shot.

A shot's id is a hash of its frames' contents (size, header and sampled data; never path or time), the colour
settings its analysis saw and the analysis version, so the same plate has the same id on every machine. Below the
root, each shot is a plain folder, published by one rename:

    <id>/shot.json          frames and their digests, settings, revision, lock: what `ShotRecord` holds
    <id>/analysis-<n>.npz   the analysis of revision n (a repair makes the next one)
    <id>/repairs.json       manual repairs, where there are any
    <id>/pins/              one file per job in progress, touched while it runs
    .locks/                 one writer per shot

Safe to share on NFS: no advisory locks, no database, readers need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import socket
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from host_bridge.errors import ShotError, unknown_name
from inference_server.plates.types import Window
from inference_server.shots.locks import FolderLock
from inference_server.shots.types import ANALYSIS_VERSION, ShotAnalysis, Track

_SAMPLE = 16 * 1024
_SAMPLES = 8
PIN_STALE_S = 15 * 60.0


@dataclass(frozen=True)
class AnalysisSettings:
    """Everything besides the frames that analysis depends on."""

    colorspace: str
    config_hash: str
    layer: str = ""
    part: str = ""
    view: str = ""
    premult: str = "auto"


@dataclass(frozen=True)
class ShotRecord:
    """A stored shot. `frames` maps frame numbers to content digests; `narrowed` says that `--shot-range` chose them."""

    id: str
    frames: Mapping[int, str]
    settings: AnalysisSettings
    version: str = ANALYSIS_VERSION
    narrowed: bool = False
    revision: int = 0
    locked: bool = False
    pattern: str = ""
    created: float = 0.0
    repairs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Id and revision: what a render of this analysis is recognised by."""
        return f"{self.id}.{self.revision}"


class FrameDigests:
    """Content digests of files, remembered while size and modification time stay the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, path: str) -> str:
        """16 hex digits over size, first and last bytes and samples between. OSError when it cannot be read."""
        status = os.stat(path)
        key = (path, status.st_mtime_ns, status.st_size)
        if key not in self._known:
            self._known[key] = _digest(path, status.st_size)
        return self._known[key]


def _digest(path: str, size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        digest.update(file.read(4 * _SAMPLE))
        for i in range(_SAMPLES + 1):
            file.seek(max(0, (size - _SAMPLE) * i // _SAMPLES))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]


class ShotStore:
    """Shots below `root`. `quota_bytes` 0 means no limit."""

    def __init__(self, root: Path, quota_bytes: int = 0) -> None:
        self.root = root
        self._quota = quota_bytes
        self.digests = FrameDigests()
        self._records: dict[str, tuple[int, ShotRecord]] = {}

    # -- finding ---------------------------------------------------------------------------------------------------

    def records(self) -> list[ShotRecord]:
        """All readable shots, oldest first."""
        found = []
        for file in sorted(self.root.glob("[0-9a-f]*/shot.json")) if self.root.is_dir() else ():
            with contextlib.suppress(ShotError, FileNotFoundError):  # one bad or vanishing shot hides no other
                found.append(self._record(file))
        return sorted(found, key=lambda r: (r.created, r.id))

    def get(self, shot_id: str) -> ShotRecord:
        """The shot of that id or unique prefix; ShotError `shot.unknown` otherwise."""
        matches = [r for r in self.records() if r.id == shot_id] or [
            r for r in self.records() if shot_id and r.id.startswith(shot_id)
        ]
        if len(matches) != 1:
            raise unknown_name("shot.unknown", "shot", shot_id, [r.id for r in self.records()])
        return matches[0]

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
        path = self.root / record.id / f"analysis-{record.revision}.npz"
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return _unpack({name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise ShotError(
                "shot.corrupt",
                f"the analysis of shot {record.id} cannot be read: {error}",
                path=str(path),
                remedy=f"Run `faceplate shots remove {record.id}` and render again.",
            ) from error

    def writer(self, key: str) -> FolderLock:
        """The lock under which a shot is made or changed; `acquire()` it before work that others would repeat."""
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
            _write_arrays(draft / "analysis-0.npz", _pack(analysis))
            _write_text(draft / "shot.json", _record_text(record))
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

    def revise(self, record: ShotRecord, analysis: ShotAnalysis, repairs: Mapping[str, Any]) -> ShotRecord:
        """Replace a shot's analysis by a repaired one: same id, next revision. ShotError where it is locked."""
        self._refuse_locked(record)
        revised = replace(record, revision=record.revision + 1, repairs=dict(repairs))
        folder = self.root / record.id
        try:
            _write_arrays(folder / f"analysis-{revised.revision}.npz", _pack(analysis))
            self._store(revised)
        except OSError as error:
            raise self._unwritable(error) from error
        return revised

    def set_locked(self, record: ShotRecord, locked: bool) -> ShotRecord:
        """Approve a shot (its analysis is then kept through upgrades and never evicted), or release it."""
        changed = replace(record, locked=locked)
        self._store(changed)
        return changed

    def remove(self, record: ShotRecord) -> None:
        """Delete a shot; ShotError where it is locked or in use."""
        self._refuse_locked(record)
        if self.pinned(record.id):
            raise ShotError(
                "shot.busy",
                f"shot {record.id} is in use by a job",
                value=record.id,
                remedy="Wait for the job or cancel it with `faceplate jobs cancel`.",
            )
        self._discard(record.id)

    # -- use -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def pin(self, shot_id: str) -> Iterator[Path | None]:
        """Keep a shot from eviction while a job needs it; touch the yielded path now and then.

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
        try:
            yield pin
        finally:
            pin.unlink(missing_ok=True)

    def pinned(self, shot_id: str) -> bool:
        """Whether a job on any machine is using the shot."""
        now = time.time()
        for pin in (self.root / shot_id / "pins").glob("*"):
            with contextlib.suppress(FileNotFoundError):
                if now - pin.stat().st_mtime < PIN_STALE_S:
                    return True
        return False

    def size_of(self, shot_id: str) -> int:
        """Bytes a shot takes."""
        return sum(f.stat().st_size for f in (self.root / shot_id).rglob("*") if f.is_file())

    def evict(self, keep: str = "") -> list[str]:
        """Remove the least recently used shots until the quota holds; locked, pinned and `keep` stay."""
        if not self._quota:
            return []
        sizes = {r.id: self.size_of(r.id) for r in self.records()}
        total, gone = sum(sizes.values()), []
        by_use = sorted(self.records(), key=lambda r: (self.root / r.id).stat().st_mtime)
        for record in by_use:
            if total <= self._quota:
                break
            if record.locked or record.id == keep or self.pinned(record.id):
                continue
            self._discard(record.id)
            total -= sizes[record.id]
            gone.append(record.id)
        return gone

    # -- inside ----------------------------------------------------------------------------------------------------

    def _record(self, file: Path) -> ShotRecord:
        stamp = file.stat().st_mtime_ns
        known = self._records.get(file.parent.name)
        if known and known[0] == stamp:
            return known[1]
        try:
            data = json.loads(file.read_text())
            data["frames"] = {int(f): str(d) for f, d in data["frames"].items()}
            data["settings"] = AnalysisSettings(**data["settings"])
            record = ShotRecord(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ShotError(
                "shot.corrupt",
                f"the record of shot {file.parent.name} cannot be read: {error}",
                path=str(file),
                remedy="Delete this folder and analyse the shot again.",
            ) from error
        self._records[file.parent.name] = (stamp, record)
        return record

    def _store(self, record: ShotRecord) -> None:
        _write_text(self.root / record.id / "shot.json", _record_text(record))

    def _discard(self, shot_id: str) -> None:
        trash = self.root / f".trash-{shot_id}-{uuid.uuid4().hex}"
        try:
            os.rename(self.root / shot_id, trash)
        except FileNotFoundError:  # another process was first
            return
        shutil.rmtree(trash, ignore_errors=True)

    def _refuse_locked(self, record: ShotRecord) -> None:
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
            "shot.busy",
            f"the shot store cannot be written: {error}",
            path=str(self.root),
            remedy="Give a writable folder with FACEPLATE_SHOTS or `shots.root` in server.toml.",
        )


def shot_identity(digests: Mapping[int, str], settings: AnalysisSettings) -> str:
    """12 hex digits: what the shot is, wherever it is stored."""
    text = json.dumps([sorted(digests.items()), asdict(settings), ANALYSIS_VERSION], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _listed(frames: list[int]) -> str:
    return ", ".join(map(str, frames[:6])) + (" ..." if len(frames) > 6 else "")


def _record_text(record: ShotRecord) -> str:
    return json.dumps(asdict(record), indent=1, sort_keys=True)


def _write_text(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(draft, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


def _write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with open(draft, "wb") as file:
        np.savez_compressed(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)


_TRACK_ARRAYS = ("landmarks", "states", "scores", "segmentation", "matrices")


def _pack(analysis: ShotAnalysis) -> dict[str, Any]:
    w = analysis.display_window
    meta = {
        "display_window": [w.x0, w.y0, w.x1, w.y1],
        "pixel_aspect": analysis.pixel_aspect,
        "work_exposure": analysis.work_exposure,
        "jitter": [analysis.jitter_before, analysis.jitter_after],
        "tracks": [{"id": t.id, "classes": list(t.classes), "enabled": t.enabled} for t in analysis.tracks],
    }
    arrays: dict[str, Any] = {
        "meta": np.array(json.dumps(meta)),
        "frames": np.array(analysis.frames, np.int64),
        "missing": np.array(analysis.missing, np.int64),
    }
    for track in analysis.tracks:
        for name in _TRACK_ARRAYS:
            arrays[f"track{track.id}.{name}"] = getattr(track, name)
    return arrays


def _unpack(arrays: Mapping[str, Any]) -> ShotAnalysis:
    meta = json.loads(str(arrays["meta"]))
    return ShotAnalysis(
        frames=tuple(int(f) for f in arrays["frames"]),
        display_window=Window(*meta["display_window"]),
        pixel_aspect=meta["pixel_aspect"],
        work_exposure=meta["work_exposure"],
        tracks=tuple(
            Track(
                id=t["id"],
                classes=tuple(t["classes"]),
                enabled=t["enabled"],
                **{name: arrays[f"track{t['id']}.{name}"] for name in _TRACK_ARRAYS},
            )
            for t in meta["tracks"]
        ),
        missing=tuple(int(f) for f in arrays["missing"]),
        jitter_before=meta["jitter"][0],
        jitter_after=meta["jitter"][1],
    )
