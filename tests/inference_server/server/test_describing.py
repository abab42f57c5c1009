"""What the server says of plates, faces and models before and beside any job."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from host_bridge.errors import ColorError, FaceplateError, PlateError, RequestError, ServerError
from host_bridge.jobspec import JobSpec, PlateSpec
from inference_server.config import ServerConfig
from inference_server.describing import Describer
from inference_server.plates.attributes import encode
from inference_server.plates.color import ColorConfig
from inference_server.plates.sequence import parse_frames
from inference_server.plates.types import Window
from inference_server.shots.store import ShotStore
from inference_server.shots.types import ShotAnalysis
from inference_server.source import PlateSource
from tests.inference_server.server.conftest import Place, wait_until
from tests.plate_files import PartSpec, rgba, samples, write_deep, write_exr, write_sequence


@pytest.fixture
def describer(tmp_path: Path) -> Describer:
    return Describer(ServerConfig(shots=str(tmp_path / "shots")))


def test_a_plate_is_described_while_a_worker_is_stuck_in_a_frame(place: Place) -> None:
    pattern = write_sequence(place.root / "plate", [*range(1001, 1004), 1007], aspect=2.0, compression="piz")
    place.control(hang={"2": 1})
    client = place.connect(cancel_grace_s=0.3, roots=[str(place.root)])
    handle = client.submit(place.job(1, 5))
    wait_until(lambda: (place.shot / "hang.2").exists())
    for _ in range(3):  # the first answer loads packages
        began = time.perf_counter()
        told = client.describe_plate(PlateSpec(pattern))
    assert time.perf_counter() - began < 0.5
    assert parse_frames(told.frames) == (1001, 1002, 1003, 1007)
    assert (told.first, told.last, told.width, told.height) == (1001, 1007, 40, 24)
    assert (told.pixel_aspect, told.compression, told.colorspace) == (2.0, "piz", "ACEScg")
    assert (told.parts, told.layers, told.views, told.shots) == (["0"], [], [], [])
    assert client.list_color().config
    with pytest.raises(PlateError) as caught:
        client.describe_plate(PlateSpec(str(place.root / "plate" / "sh020.%04d.exr")))
    assert caught.value.code == "plate.no_frames"
    assert "sh010.1001.exr" in caught.value.remedy
    with pytest.raises(ColorError, match="ACEScc"):
        client.describe_plate(PlateSpec(pattern, colorspace="ACESc"))
    for wrong, code in (
        (PlateSpec("sh010.%04d.exr"), "request.bad_value"),
        (PlateSpec("/etc/%04d.exr"), "server.not_allowed"),
        (PlateSpec(pattern, view="../up"), "request.bad_value"),
        (PlateSpec(pattern, premult="perhaps"), "request.unknown_name"),
    ):
        with pytest.raises((RequestError, ServerError)) as refused:
            client.describe_plate(wrong)
        assert refused.value.code == code
    assert client.query(handle.job_id).state == "running"
    handle.cancel()
    assert handle.wait(10).state == "cancelled"


def test_parts_layers_and_views_of_a_file_are_those_that_jobs_take(describer: Describer, tmp_path: Path) -> None:
    beauty = {**rgba(), **{f"diffuse.{c}": samples("half", 24, 40) for c in "RGB"}, "depth.Z": samples("float", 24, 40)}
    ids = {f"id.{c}": samples("uint", 24, 40) for c in "RGB"}
    left, right = ({"view": encode("string", name)} for name in ("left", "right"))
    display = Window(0, 0, 64, 32)
    path = write_exr(
        tmp_path / "views.0007.exr",
        PartSpec({**beauty, **ids}, name="beauty", attributes=left, display=display),
        PartSpec({c: samples("half", 24, 40) for c in "RGB"}, name="spec", attributes=left, display=display),
        PartSpec({c: samples("half", 24, 40) for c in "RGB"}, name="other", attributes=right, display=display),
    )
    told = describer.plate(PlateSpec(path))
    assert (told.first, told.width, told.height) == (7, 64, 32)
    assert told.parts == ["beauty", "spec", "other"]
    assert told.layers == ["beauty", "diffuse", "spec"]
    assert told.views == ["left", "right"]
    assert describer.plate(PlateSpec(path, view="right")).layers == ["other"]
    # a wrong choice is answered with what there is
    assert describer.plate(PlateSpec(path, layer="specular", part="nine")).layers == told.layers


def test_the_first_frame_that_can_be_read_counts(describer: Describer, tmp_path: Path) -> None:
    pattern = write_sequence(tmp_path, [1, 2, 3])
    whole = (tmp_path / "sh010.0001.exr").read_bytes()
    (tmp_path / "sh010.0001.exr").write_bytes(whole[:50])
    (tmp_path / "sh010.0002.exr").write_bytes(b"")
    assert describer.plate(PlateSpec(pattern)).width == 40
    write_deep(tmp_path / "sh010.0003.exr")
    with pytest.raises(PlateError) as caught:
        describer.plate(PlateSpec(pattern))
    assert (caught.value.code, caught.value.frame) == ("plate.truncated", 1)
    picture = tmp_path / "still.png"
    output = oiio.ImageOutput.create(str(picture))
    output.open(str(picture), oiio.ImageSpec(12, 8, 3, "uint16"))
    output.write_image(np.zeros((8, 12, 3), np.uint16))
    output.close()
    told = describer.plate(PlateSpec(str(picture)))
    assert (told.width, told.height, told.parts, told.compression) == (12, 8, ["0"], "")


def test_views_of_a_pattern_and_the_shots_that_hold_its_frames(tmp_path: Path) -> None:
    for view in ("left", "right"):
        write_sequence(tmp_path / view, [1, 2, 3], name=f"sh.{view}.%04d.exr")
    config = ServerConfig(shots=str(tmp_path / "shots"))
    describer, store = Describer(config), ShotStore(config.shots_path)
    plate = PlateSpec(str(tmp_path / "%V" / "sh.%V.%04d.exr"), view="right")
    source = PlateSource.open(JobSpec("analyse", plate), ColorConfig())
    digests = {frame: store.digests.of(path) for frame, path in source.sequence.files.items()}
    empty = ShotAnalysis((1, 2, 3), Window(0, 0, 40, 24), 1.0, 0.0, ())
    shot = store.publish(empty, digests, source.settings, narrowed=False, pattern=plate.pattern)
    other = store.publish(empty, {**digests, 3: "changed"}, source.settings, narrowed=False, pattern=plate.pattern)
    told = describer.plate(plate)
    assert told.views == ["left", "right"]
    assert told.shots == [shot.id] != [other.id]
    assert describer.plate(PlateSpec(plate.pattern, view="left")).shots == []
    assert describer.plate(PlateSpec(plate.pattern, view="right", premult="straight")).shots == []
    with pytest.raises(FaceplateError):
        describer.plate(PlateSpec(plate.pattern, view="middle"))
