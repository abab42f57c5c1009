"""Real plates analysed into the store: several faces, small, cut off, leaving and returning; several processes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from host_bridge.errors import FaceError, ShotError
from inference_server.faces.types import FaceState
from inference_server.plates.reader import read_plate
from inference_server.rendering import choose_faces
from inference_server.runs import FrameDone, Progress, RunEvent, Warned
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ShotAnalysis, Track
from tests.inference_server.shots.conftest import Studio, planned, retouch
from tests.inference_server.shots.heads import write_heads
from tests.portrait import COLORSPACE, write_shot
from tests.unprivileged import folder_for_anyone, outcome_without_privileges

FOUND, GONE = FaceState.DETECTED, FaceState.ABSENT


@pytest.fixture(scope="module")
def couple(studio: Studio, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ShotAnalysis]:
    """Two heads of different size, each drifting its own way."""
    frames = [[(20 + 2 * i, 30, 220), (300 - i, 60, 140)] for i in range(3)]
    pattern = write_heads(tmp_path_factory.mktemp("couple"), (480, 280), frames)
    return pattern, studio.store.load(studio.analyse(pattern))


def nose(track: Track, position: int = 0) -> tuple[int, int]:
    """Column and row of the tip of the nose."""
    x, y = track.landmarks[position, 4, :2]
    return int(x), int(y)


def rgb(path: str, part: int = 0) -> NDArray[np.uint16]:
    """[H, W, 3] the stored bits."""
    channels = read_plate(path).parts[part].channels
    return np.stack([channels[c] for c in "RGB"], axis=-1).view(np.uint16)


def matte(spec_output: str, frame: int) -> NDArray[np.float32]:
    return read_plate(spec_output % frame).parts[0].channels["A"].astype(np.float32)


def analysed(events: list[RunEvent]) -> int:
    return sum(isinstance(e, Progress) and e.stage == "analyse" for e in events)


def warned(events: list[RunEvent]) -> list[tuple[str, int | None]]:
    return [(e.code, e.frame) for e in events if isinstance(e, Warned)]


def test_two_faces_are_two_tracks(couple: tuple[str, ShotAnalysis]) -> None:
    left, right = couple[1].tracks
    assert (left.id, right.id) == (1, 2)
    for track in (left, right):
        assert track.states.tolist() == [FOUND] * 3
    drift = [np.diff(t.landmarks[:, :, 0].mean(axis=1)) for t in (left, right)]
    assert drift[0] == pytest.approx([2, 2], abs=0.5)
    assert drift[1] == pytest.approx([-1, -1], abs=0.5)
    sizes = [np.ptp(t.landmarks[0, :, 1]) for t in (left, right)]
    assert sizes[0] / sizes[1] == pytest.approx(220 / 140, rel=0.1)


def test_a_face_is_chosen_for_the_shot(couple: tuple[str, ShotAnalysis]) -> None:
    analysis = couple[1]
    left, right = analysis.tracks
    x, y = nose(right)
    choices = {"largest": (1,), "all": (1, 2), "1": (1,), "2": (2,), f"{x},{y}": (2,), "90.5, 120": (1,)}
    assert {choice: choose_faces(analysis, choice) for choice in choices} == choices
    with pytest.raises(FaceError) as caught:
        choose_faces(analysis, "3")
    assert caught.value.code == "face.unknown"
    nowhere = replace(left, states=np.zeros_like(left.states))  # every frame cut away by a repair
    assert choose_faces(replace(analysis, tracks=(nowhere, right)), f"{nose(left)[0]},{y}") == (2,)
    assert choose_faces(replace(analysis, tracks=(nowhere, right)), "largest") == (2,)
    assert choose_faces(replace(analysis, tracks=(nowhere,)), "largest") == ()
    hidden = replace(analysis, tracks=(replace(left, enabled=False), right))
    assert choose_faces(hidden, "largest") == choose_faces(hidden, "all") == (2,)


@pytest.mark.parametrize(("face", "treated"), [("all", (1, 2)), ("2", (2,))])
def test_chosen_faces_are_treated_and_nothing_else(
    studio: Studio, couple: tuple[str, ShotAnalysis], tmp_path: Path, face: str, treated: tuple[int, ...]
) -> None:
    pattern, analysis = couple
    spec = retouch(pattern, tmp_path, face=face, frames="1001,1003")
    assert analysed(studio.run(spec)) == 0
    for position, frame in ((0, 1001), (2, 1003)):
        before, after = rgb(pattern % frame), rgb(spec.output % frame)
        used, changed = matte(spec.matte_output, frame), (before != after).any(axis=-1)
        assert not changed[used == 0].any()
        for track in analysis.tracks:
            x, y = nose(track, position)
            box = slice(y - 20, y + 20), slice(x - 20, x + 20)
            assert bool(changed[box].any()) == (track.id in treated)
            assert bool(used[y, x] > 0) == (track.id in treated)


def test_a_head_of_40_px_in_1080p_is_rendered(studio: Studio, tmp_path: Path) -> None:
    """From top to chin it is 40 px of 1080; the face itself is half of that."""
    pattern = write_heads(tmp_path / "in", (1920, 1080), [[(1300, 700, 56)], [(1301, 700, 56)]])
    spec = retouch(pattern, tmp_path / "out")
    events = studio.run(spec)
    (track,) = studio.store.load(studio.store.get(planned(events))).tracks
    assert track.states.tolist() == [FOUND, FOUND]
    assert np.ptp(track.landmarks[0, :, 1]) < 27
    assert [e.status for e in events if isinstance(e, FrameDone)] == ["rendered"] * 2
    changed = (rgb(pattern % 1002) != rgb(spec.output % 1002)).any(axis=-1)
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 50
    assert 1290 < columns.min() < columns.max() < 1360
    assert 690 < rows.min() < rows.max() < 770
    assert not changed[matte(spec.matte_output, 1002) == 0].any()


def test_a_face_partly_out_of_frame(studio: Studio, tmp_path: Path) -> None:
    """The frame's edge goes through the face; landmarks lie outside and nothing is lost of the rest."""
    pattern = write_heads(tmp_path / "in", (320, 240), [[(-50 - i, 20, 200)] for i in range(3)])
    spec = retouch(pattern, tmp_path / "out")
    events = studio.run(spec)
    (track,) = studio.store.load(studio.store.get(planned(events))).tracks
    assert track.states.tolist() == [FOUND] * 3
    assert track.landmarks[..., 0].min() < -5
    changed = (rgb(pattern % 1001) != rgb(spec.output % 1001)).any(axis=-1)
    assert changed[:, :4].any()  # up to the very edge
    assert not changed[matte(spec.matte_output, 1001) == 0].any()


def test_a_face_that_leaves_and_returns(studio: Studio, tmp_path: Path) -> None:
    """Each stay is a track; frames without a face are copies of the plate and say so."""
    places = [14, 4, -6, -15, None, None, None, -15, -6, 4, 14]
    pattern = write_heads(tmp_path / "in", (240, 168), [[] if x is None else [(x, 14, 140)] for x in places])
    spec = retouch(pattern, tmp_path / "out", face="all", matte_output="", frames="1004-1007,1009")
    events = studio.run(spec)
    first, second = studio.store.load(studio.store.get(planned(events))).tracks
    assert first.states.tolist() == [FOUND] * 4 + [GONE] * 7
    assert second.states.tolist() == [GONE] * 7 + [FOUND] * 4
    assert [c for c in warned(events) if c[0] == "face.none"] == [("face.none", f) for f in (1005, 1006, 1007)]
    assert Path(spec.output % 1006).read_bytes() == Path(pattern % 1006).read_bytes()
    assert (rgb(spec.output % 1009) != rgb(pattern % 1009)).any()


def test_another_plate_with_the_same_shot_range_is_another_shot(studio: Studio, tmp_path: Path) -> None:
    one = write_shot(tmp_path / "one", range(1001, 1003), seed=101)
    other = write_shot(tmp_path / "other", range(1001, 1003), seed=102)
    first = studio.analyse(one, shot_range="1001-1002")
    assert studio.analyse(other, shot_range="1001-1002").id != first.id
    assert studio.analyse(one, shot_range="1001-1002") == first


_ANALYSE = """
import sys
from pathlib import Path
from inference_server.runs import Progress
from tests.inference_server.shots.conftest import Studio
from tests.portrait import COLORSPACE
from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.runs import JobContext
studio = Studio(Path(sys.argv[1]))
spec = JobSpec(kind="analyse", plate=PlateSpec(sys.argv[2], colorspace=COLORSPACE))
for event in studio._runner.run(spec, JobContext("other")):
    if isinstance(event, Progress):
        print(event.done, flush=True)
        if event.done == 1:
            sys.stdin.readline()
"""


def test_two_processes_at_once_analyse_a_shot_once(studio: Studio, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1005), seed=103)
    command = [sys.executable, "-c", _ANALYSE, str(studio.root), pattern]
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "1\n"
        from host_bridge.jobspec import JobSpec, PlateSpec
        from inference_server.runs import JobContext

        spec = JobSpec(kind="analyse", plate=PlateSpec(pattern, colorspace=COLORSPACE))
        mine = studio._runner.run(spec, JobContext("mine"))
        events = [next(mine)]
        assert warned(events) == [("shot.waiting", None)]
        other.stdin.write("go on\n")
        other.stdin.flush()
        events += list(mine)
        assert other.stdout.read().split() == ["2", "3", "4"]
        assert other.wait() == 0
    assert analysed(events) == 0
    assert studio.store.get(planned(events)).frames.keys() == {1001, 1002, 1003, 1004}


def test_a_store_that_may_not_be_written_is_a_clear_error(studio: Studio, tmp_path: Path) -> None:
    record = studio.analyse(write_shot(tmp_path / "in", range(1001, 1003), seed=104))
    with folder_for_anyone() as folder:
        root = folder / "shots"
        shutil.copytree(studio.root / record.id, root / record.id)
        (root / ".locks").mkdir()
        for path in (root, *root.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)

        def attempts() -> str:
            store = ShotStore(root)
            said = [f"{len(store.load(store.get(record.id)).frames)} frames read"]
            for attempt in (
                lambda: store.writer("x").acquire(),
                lambda: store.set_locked(record, True),
                lambda: store.remove(record),
                lambda: store.discard(record.id),
                lambda: ShotStore(root / "below").writer("x"),
            ):
                try:
                    attempt()
                    said.append("done")
                except ShotError as error:
                    said.append(f"{error.code} {'FACEPLATE_SHOTS' in error.remedy} {str(root) in str(error)}")
            return "\n".join(said)

        said = outcome_without_privileges(attempts)
        for path in (root, *root.rglob("*")):
            path.chmod(0o755)
    assert said.splitlines() == ["2 frames read"] + ["shot.store True True"] * 5


def as_an_older_version_left_it(store: ShotStore, record: ShotRecord, **changes: object) -> ShotRecord:
    """The shot as another analysis version would have stored it: under another id."""
    older = "0" + record.id[1:-1] + "f"
    shutil.move(store.root / record.id, store.root / older)
    file = store.root / older / "shot.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"id": older, "version": "0"} | changes))
    return store.get(older)


def test_a_locked_shot_keeps_its_analysis_through_an_upgrade(studio: Studio, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=105)
    made = studio.analyse(pattern)
    old = as_an_older_version_left_it(studio.store, made, repairs={"version": 1, "split": [], "points": []})
    studio.store.set_locked(old, True)
    spec = retouch(pattern, tmp_path / "out", frames="1002", matte_output="")
    events = studio.run(spec)
    assert (planned(events), analysed(events)) == (old.id, 0)
    studio.store.set_locked(old, False)
    events = studio.run(spec)
    assert (planned(events), analysed(events)) == (made.id, 2)
    assert [code for code, _ in warned(events)][:2] == ["shot.upgraded", "shot.repairs"]


def test_frames_added_to_a_repaired_shot_say_what_is_left_behind(studio: Studio, tmp_path: Path) -> None:
    pattern = write_shot(tmp_path / "in", range(1001, 1003), seed=106)
    record = studio.analyse(pattern)
    studio.store.revise(record, studio.store.load(record), {"version": 1, "merge": [{"into": 1, "track": 2}]})
    write_shot(tmp_path / "in", [1003], seed=106)
    events = studio.run(retouch(pattern, tmp_path / "out", matte_output=""))
    assert [code for code, _ in warned(events)][:2] == ["shot.extended", "shot.repairs"]
    assert planned(events) != record.id
