"""Faces and repairs through a server that runs the real pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from host_bridge.client import Client
from host_bridge.errors import EffectError, FaceplateError, PlateError, RequestError
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec
from inference_server.plates.sequence import parse_frames
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
