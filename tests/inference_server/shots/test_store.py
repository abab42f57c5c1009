"""The shot store: content-addressed, found by any part, safe to share, never silently stale."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from host_bridge.errors import ShotError
from inference_server.faces.types import FaceState
from inference_server.plates.types import Window
from inference_server.shots import locks
from inference_server.shots.locks import FolderLock
from inference_server.shots.store import (
    PIN_STALE_S,
    AnalysisSettings,
    FrameDigests,
    ShotRecord,
    ShotStore,
    shot_identity,
)
from inference_server.shots.types import ShotAnalysis, Track

SETTINGS = AnalysisSettings("ACEScg", "abc")


def _analysis(frames: tuple[int, ...], seed: int = 0) -> ShotAnalysis:
    rng = np.random.default_rng(seed)
    n = len(frames)
    states = np.full(n, FaceState.DETECTED, np.uint8)
    states[-1] = FaceState.ABSENT
    track = Track(
        id=1,
        landmarks=rng.random((n, 478, 3), np.float32),
        states=states,
        scores=rng.random(n, np.float32),
        classes=("person", "hair"),
        segmentation=rng.integers(0, 256, (n, 2, 8, 8), np.uint8),
        matrices=rng.random((n, 2, 3), np.float32),
    )
    window = Window(0, 0, 64, 48)
    return ShotAnalysis(frames, window, 2.0, -0.5, (track,), jitter_before=1.5, jitter_after=0.25, cuts=frames[1:2])


def _frames(folder: Path, numbers: range, seed: int = 0) -> dict[int, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    out = {}
    for n in numbers:
        out[n] = folder / f"a.{n:04d}.exr"
        out[n].write_bytes(rng.bytes(300_000))
    return out


def _digests(paths: dict[int, Path]) -> dict[int, str]:
    digests = FrameDigests()
    return {n: digests.of(str(p)) for n, p in paths.items()}


def _publish(store: ShotStore, wanted: dict[int, str], narrowed: bool = False) -> ShotRecord:
    return store.publish(_analysis(tuple(sorted(wanted))), wanted, SETTINGS, narrowed=narrowed, pattern="a.####.exr")


def test_analysis_comes_back_as_it_was(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    wanted = _digests(_frames(tmp_path / "p", range(1001, 1004)))
    record = _publish(store, wanted)
    back = ShotStore(tmp_path / "store").load(ShotStore(tmp_path / "store").get(record.id))
    expected = _analysis((1001, 1002, 1003))
    assert (back.frames, back.cuts) == (expected.frames, expected.cuts)
    assert (back.pixel_aspect, back.work_exposure, back.jitter_after) == (2.0, -0.5, 0.25)
    for name in ("landmarks", "states", "scores", "segmentation", "matrices"):
        np.testing.assert_array_equal(getattr(back.tracks[0], name), getattr(expected.tracks[0], name))
    face = back.face_at(1, 1002)
    assert face is not None
    assert face.segmentation is not None
    assert face.segmentation.values.max() <= 1
    assert back.face_at(1, 1003) is None  # absent there
    assert back.face_at(1, 9999) is None


def test_id_follows_content_not_place(tmp_path: Path) -> None:
    here = _frames(tmp_path / "here", range(1, 4))
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    there = {n: tmp_path / "there" / p.name for n, p in here.items()}
    os.utime(there[1], (1, 1))
    assert shot_identity(_digests(here), SETTINGS) == shot_identity(_digests(there), SETTINGS)
    data = bytearray(there[2].read_bytes())
    data[10] ^= 1
    there[2].write_bytes(data)
    assert shot_identity(_digests(here), SETTINGS) != shot_identity(_digests(there), SETTINGS)
    assert shot_identity(_digests(here), SETTINGS) != shot_identity(_digests(here), AnalysisSettings("ACEScct", "abc"))


def test_any_part_finds_the_shot_and_later_frames_do_not_replace_it(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    paths = _frames(tmp_path / "p", range(1, 9))
    wanted = _digests(paths)
    first = _publish(store, {n: wanted[n] for n in range(1, 7)})
    assert store.find(SETTINGS, {3: wanted[3]}, None) == first
    assert store.find(SETTINGS, {3: wanted[3], 8: wanted[8]}, None) is None  # 8 came later
    second = _publish(store, wanted)
    assert store.find(SETTINGS, {8: wanted[8]}, None) == second
    assert store.find(AnalysisSettings("other", "abc"), {3: wanted[3]}, None) is None


def test_a_narrowed_shot_is_found_only_by_its_range(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    wanted = _digests(_frames(tmp_path / "p", range(1, 6)))
    part = {n: wanted[n] for n in (2, 3)}
    narrow = _publish(store, part, narrowed=True)
    assert store.find(SETTINGS, {2: wanted[2]}, None) is None
    assert store.find(SETTINGS, {2: wanted[2]}, (2, 3)) == narrow


def test_changed_or_foreign_frames_are_refused_by_id(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    wanted = _digests(_frames(tmp_path / "p", range(1, 4)))
    record = _publish(store, wanted)
    store.check_current(record, wanted)
    with pytest.raises(ShotError, match="frames 9 are not part"):
        store.check_current(record, {9: "x"})
    with pytest.raises(ShotError, match="have changed") as caught:
        store.check_current(record, {**wanted, 2: "different"})
    assert caught.value.code == "shot.stale"
    assert caught.value.frame == 2


def test_unknown_and_corrupt_shots(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    record = _publish(store, _digests(_frames(tmp_path / "p", range(1, 3))))
    with pytest.raises(ShotError) as caught:
        store.get("ffffffffffff")
    assert caught.value.code == "shot.unknown"
    assert store.get(record.id[:6]) == record
    file = tmp_path / "store" / record.id / "analysis-0.npz"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ShotError) as caught:
        store.load(record)
    assert caught.value.code == "shot.corrupt"


def test_revision_keeps_the_id_and_a_lock_refuses_it(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    record = _publish(store, _digests(_frames(tmp_path / "p", range(1, 3))))
    revised = store.revise(record, _analysis((1, 2), seed=5), {"tracks": {"1": {"enabled": False}}})
    assert (revised.id, revised.revision) == (record.id, 1)
    assert revised.key != record.key
    np.testing.assert_array_equal(
        store.load(store.get(record.id)).tracks[0].landmarks, _analysis((1, 2), 5).tracks[0].landmarks
    )
    locked = store.set_locked(revised, True)
    for action in (lambda: store.revise(locked, _analysis((1, 2)), {}), lambda: store.remove(locked)):
        with pytest.raises(ShotError) as caught:
            action()
        assert caught.value.code == "shot.locked"
    store.remove(store.set_locked(locked, False))
    assert store.records() == []


def test_quota_spares_locked_pinned_and_fresh_shots(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store", quota_bytes=1)
    records = []
    for i in range(3):
        records.append(
            _publish(ShotStore(tmp_path / "store"), _digests(_frames(tmp_path / f"p{i}", range(1, 3), seed=i)))
        )
    store.set_locked(records[0], True)
    with store.pin(records[1].id):
        with pytest.raises(ShotError, match="in use"):
            store.remove(records[1])
        newest = store.publish(
            _analysis((1, 2)),
            _digests(_frames(tmp_path / "p9", range(1, 3), seed=9)),
            SETTINGS,
            narrowed=False,
            pattern="",
        )
        assert {r.id for r in store.records()} == {records[0].id, records[1].id, newest.id}
    store.evict(keep=newest.id)
    assert {r.id for r in store.records()} == {records[0].id, newest.id}


def test_a_dead_jobs_pin_expires(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    record = _publish(store, _digests(_frames(tmp_path / "p", range(1, 3))))
    pin = tmp_path / "store" / record.id / "pins" / "old"
    pin.touch()
    assert store.pinned(record.id)
    os.utime(pin, (time.time() - PIN_STALE_S - 1,) * 2)
    assert not store.pinned(record.id)


def test_a_pin_outlives_long_jobs_but_not_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_server.shots.store.PIN_STALE_S", 0.5)
    store = ShotStore(tmp_path / "store")
    record = _publish(store, _digests(_frames(tmp_path / "p", range(1, 3))))
    with store.pin(record.id):
        time.sleep(1.0)
        assert store.pinned(record.id)
    assert not store.pinned(record.id)
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    (store.root / record.id / "pins" / f"{socket.gethostname()}-{gone.pid}-0").touch()
    assert not store.pinned(record.id)
    (store.root / record.id / "pins" / f"elsewhere-{gone.pid}-0").touch()
    assert store.pinned(record.id)


def test_renders_are_recognised_by_repairs_not_by_their_count(tmp_path: Path) -> None:
    """Two different first repairs, and an equal one in another store."""
    wanted = _digests(_frames(tmp_path / "p", range(1, 3)))
    keys = []
    for name, repairs in (("a", {"version": 1, "x": 1}), ("b", {"version": 1, "x": 2}), ("c", {"x": 1, "version": 1})):
        store = ShotStore(tmp_path / name)
        keys.append(store.revise(_publish(store, wanted), _analysis((1, 2)), repairs).key)
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    undone = store.revise(store.records()[0], _analysis((1, 2)), {})
    assert (undone.revision, undone.key) == (2, _publish(ShotStore(tmp_path / "d"), wanted).key)


def test_an_outline_is_read_without_meshes_and_maps(tmp_path: Path) -> None:
    store = ShotStore(tmp_path / "store")
    record = _publish(store, _digests(_frames(tmp_path / "p", range(1001, 1004))))
    whole, outline = store.load(record), store.outline(record)
    for name in ("frames", "display_window", "pixel_aspect", "work_exposure", "jitter_before", "jitter_after"):
        assert getattr(outline, name) == getattr(whole, name), name
    (track,) = outline.tracks
    assert (track.id, track.enabled, track.classes) == (1, True, ("person", "hair"))
    np.testing.assert_array_equal(track.states, whole.tracks[0].states)


def test_a_late_taker_of_an_abandoned_lock_gives_a_new_owners_back(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text('{"host": "elsewhere", "pid": 1, "token": "t"}')
    os.utime(path, (time.time() - locks.STALE_S - 1,) * 2)
    late, abandoned = FolderLock(path), {"host": "elsewhere", "pid": 1, "token": "t"}
    first = FolderLock(path)
    assert first.acquire()
    late._retire(abandoned)  # it had looked before `first` came
    assert not late.acquire()
    assert first._owner()["token"] == first._token
    first.release()
    assert list(tmp_path.iterdir()) == []


def test_the_second_writer_gets_the_firsts_shot(tmp_path: Path) -> None:
    wanted = _digests(_frames(tmp_path / "p", range(1, 3)))
    first = _publish(ShotStore(tmp_path / "store"), wanted)
    second = _publish(ShotStore(tmp_path / "store"), wanted)
    assert second.created == first.created
    assert [p.name for p in (tmp_path / "store").iterdir() if p.name.startswith(".draft")] == []


_HOLD = """
import sys, time
from pathlib import Path
from inference_server.shots.locks import FolderLock
assert FolderLock(Path(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_lock_is_exclusive_and_a_killed_owner_loses_it(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        lock = FolderLock(path)
        assert not lock.acquire()
        owner.kill()
    assert lock.acquire()
    lock.release()
    assert not path.exists()


def test_a_silent_owner_on_another_host_loses_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    path.write_text('{"host": "elsewhere", "pid": 1, "token": "t"}')
    assert not FolderLock(path).acquire()
    os.utime(path, (time.time() - locks.STALE_S - 1,) * 2)
    with FolderLock(path) as lock:
        assert lock.acquire()


def test_a_read_only_store_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ShotStore(tmp_path / "store")
    record = _publish(store, _digests(_frames(tmp_path / "p", range(1, 3))))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    with store.pin(record.id) as pin:
        assert pin is None
        assert store.load(record).frames == (1, 2)
