"""Faces and repairs through a server that runs the real pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from host_bridge import messages as m
from host_bridge.cli import main as cli_main
from host_bridge.client import Client
from host_bridge.errors import EffectError, FaceplateError, PlateError, RequestError, ShotError
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server.plates.sequence import parse_frames
from inference_server.shots.store import ShotStore
from tests.inference_server.server.conftest import Place
from tests.portrait import COLORSPACE, SIZE, write_shot

FRAMES = range(1001, 1005)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server with the real pipeline."""
    root = tmp_path_factory.mktemp("studio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACEPLATE_CONFIG", str(root / "config"))
        patch.delenv("FACEPLATE_SERVER", raising=False)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
        there = Place(root)
        there.client = there.connect(
            runner="inference_server.pipeline:open_runner",
            effects="inference_server.effects.registry:descriptors",
            shots=str(root / "shots"),
            threads=1,
        )
        yield there
        there.close()


def looked_at(pattern: str, **changes: object) -> JobSpec:
    fields: dict[str, object] = {"effect": "retouch", "edits": [["smile", 0.8]], **changes}
    return JobSpec("render", PlateSpec(pattern, COLORSPACE), **fields)  # type: ignore[arg-type]


def analysed(client: Client, pattern: str) -> str:
    """The id of the shot, analysed now."""
    assert client.submit(JobSpec("analyse", PlateSpec(pattern, COLORSPACE))).wait(60).state == "finished"
    (shot,) = client.describe_plate(PlateSpec(pattern, COLORSPACE)).shots
    return shot


def test_faces_of_a_frame_alone_and_of_the_analysed_shot(studio: Place) -> None:
    client, pattern = studio.client, write_shot(studio.root / "faces", FRAMES, seed=71)
    job = looked_at(pattern)
    alone = client.list_faces(job, 1002)
    assert (alone.frame, alone.shot, alone.tracks, alone.repairs) == (1002, "", [], {})
    (face,) = alone.faces
    assert (face["chosen"], face["enabled"], face["state"]) == (True, True, "detected")
    assert np.shape(face["points"]) == (478, 2)
    x0, y0, x1, y1 = face["box"]
    assert 0 < x0 < x1 < SIZE
    assert 0 < y0 < y1 < SIZE
    cx0, cy0, cx1, cy1 = face["region"]
    assert (cx0 <= x0, cy0 <= y0, cx1 >= x1, cy1 >= y1) == (True,) * 4
    assert client.preview(PreviewSpec(job, 1002)).result(30).result.region == face["region"]
    shot = analysed(client, pattern)
    told = client.list_faces(job, 1003)
    assert (told.shot, told.locked) == (shot, False)
    (track,) = told.tracks
    assert (track["track"], track["chosen"], track["enabled"]) == (told.faces[0]["track"], True, True)
    assert parse_frames(track["frames"]) == tuple(FRAMES)
    assert told.repairs == {"version": 1, "split": [], "merge": [], "tracks": [], "boxes": [], "points": []}
    narrow = client.list_faces(looked_at(pattern, params={"padding_left": 120}), 1003).faces[0]["region"]
    assert narrow[0] > told.faces[0]["region"][0]
    assert narrow[1:] == told.faces[0]["region"][1:]
    assert client.list_faces(looked_at(pattern, effect="", edits=[]), 1003).faces[0]["region"] == []
    other = client.list_faces(looked_at(pattern, face="9"), 1003)
    assert [f["chosen"] for f in other.faces] == [False]


def test_faces_that_cannot_be_told(studio: Place) -> None:
    client, pattern = studio.client, write_shot(studio.root / "wrong", [1001], seed=72)
    refused: list[tuple[JobSpec, int, type[FaceplateError], str]] = [
        (looked_at(pattern), 1009, PlateError, "plate.missing_frame"),
        (looked_at(pattern, shot="abcdef"), 1001, FaceplateError, "shot.unknown"),
        (looked_at(pattern, edits=[["smyle", 1]]), 1001, EffectError, "effect.parameter"),
        (looked_at(pattern, effect="retuch"), 1001, EffectError, "effect.unknown"),
        (looked_at("relative.%04d.exr"), 1001, RequestError, "request.bad_value"),
        (looked_at(pattern), 10**9, RequestError, "request.bad_value"),
    ]
    for job, frame, kind, code in refused:
        with pytest.raises(kind) as caught:
            client.list_faces(job, frame)
        assert caught.value.code == code
        assert caught.value.remedy


def test_a_repair_is_a_job_and_everything_afterwards_uses_it(studio: Place, capsys: pytest.CaptureFixture[str]) -> None:
    client, pattern = studio.client, write_shot(studio.root / "repair", FRAMES, seed=73)
    job, shot = looked_at(pattern), analysed(studio.client, pattern)
    before = client.preview(PreviewSpec(job, 1002)).result(30)
    found = client.list_faces(job, 1002).faces[0]
    target = [found["points"][4][0] + 20.0, found["points"][4][1] + 8.0]
    repairs = {
        "version": 1,
        "tracks": [{"track": found["track"], "last": 1003}],
        "points": [{"track": found["track"], "landmark": 4, "reach": 3.0, "keys": {"1002": target}}],
    }
    repair = JobSpec("repair", PlateSpec(pattern), shot=shot, repairs=repairs)
    handle = client.submit(repair)
    events = list(handle.events(60))
    assert handle.wait(1).state == "finished"
    stages = [(e.stage, e.total) for e in events if isinstance(e, m.JobProgress)]
    assert stages[-1] == ("analyse", len(FRAMES))
    assert [e.shot for e in events if isinstance(e, m.JobStarted)] == [shot]
    # the picture, the faces and the render are those of the new revision
    told = client.list_faces(job, 1002)
    assert told.faces[0]["state"] == "manual"
    assert told.faces[0]["points"][4] == pytest.approx(target, abs=0.02)
    assert told.tracks[0]["frames"] == "1001-1003"
    assert told.repairs["points"] == repairs["points"]
    after = client.preview(PreviewSpec(job, 1002)).result(30)
    assert after.result.final
    assert after.result.region != before.result.region or after.pixels != before.pixels
    assert client.list_faces(job, 1004).faces == []
    out = studio.out / "repaired.%04d.exr"
    render = client.submit(replace(job, output=str(out), frames="1002-1004"))
    done = {e.frame: e.status for e in render.events(60) if isinstance(e, m.FrameDoneEvent)}
    assert done == {1002: "rendered", 1003: "rendered", 1004: "identity"}
    # the same repairs again change nothing; as after a restart of the server
    assert client.submit(repair).wait(30).state == "finished"
    store = ShotStore(studio.root / "shots")
    assert store.get(shot).revision == 1
    assert cli_main(["jobs", "show", handle.job_id[:12], "--server", str(studio.runtime / "connection.json")]) == 0
    shown = capsys.readouterr().out
    assert f"finished   repair                {len(FRAMES)} frames" in shown
    assert f"shot     {shot}" in shown
    assert "repairs  1 tracks, 1 points" in shown


def test_a_repair_that_is_cancelled_or_refused_changes_nothing(studio: Place) -> None:
    client, pattern = studio.client, write_shot(studio.root / "cancel", range(1001, 1025), seed=74)
    shot, store = analysed(client, pattern), ShotStore(studio.root / "shots")
    repair = JobSpec("repair", PlateSpec(pattern), shot=shot, repairs={"version": 1, "tracks": [{"track": 1}]})
    handle = client.submit(repair)
    for event in handle.events(30):
        if isinstance(event, m.JobStarted):
            handle.cancel()
    assert handle.wait(1).state == "cancelled"
    assert store.get(shot).revision == 0
    for repairs in (
        {},
        {"version": 2},
        {"version": 1, "boxes": [{"track": 1, "keys": {"1001": [5, 5, 1, 9]}}]},
        {"version": 1, "points": [{"track": 1, "landmark": 478, "keys": {"1001": [1, 2]}}]},
        {"version": 1, "tracks": 3},
        {"version": 1, "merge": [{"into": "1", "track": 2}]},
    ):
        with pytest.raises(ShotError) as caught:
            client.submit(replace(repair, repairs=repairs)).accepted.result(5)
        assert caught.value.code == "shot.edit"
    for wrong in (replace(repair, shot=""), replace(repair, kind="analyse")):
        with pytest.raises(RequestError):
            client.submit(wrong).accepted.result(5)
    unknown = client.submit(replace(repair, repairs={"version": 1, "tracks": [{"track": 7}]})).wait(30)
    assert unknown.error is not None
    assert unknown.error.code == "shot.edit"
    store.set_locked(store.get(shot), True)
    locked = client.submit(repair).wait(30)
    assert locked.error is not None
    assert (locked.state, locked.error.code) == ("failed", "shot.locked")
    assert client.list_faces(looked_at(pattern), 1001).locked
    assert store.get(shot).revision == 0
