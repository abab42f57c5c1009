"""What a node submits: files as they are or pre-comps, numbering, colour, hashes. No Nuke and no server."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_bridge.curves import Curve
from host_bridge.errors import FaceplateError
from host_bridge.hosts.nuke_files import at_frame, missing_frames, with_view
from host_bridge.hosts.nuke_job import (
    ColorFacts,
    InputFacts,
    NodeFacts,
    ReadFacts,
    file_colorspace,
    plain_space,
    plan,
    script_frames,
    stale_reason,
    time_offset,
)
from host_bridge.hosts.nuke_knobs import job_values, sampled
from inference_server.effects.registry import descriptor

PLATE = "/shots/sh010.%04d.exr"


def a_read(file: str = PLATE, **changes: Any) -> ReadFacts:
    return replace(ReadFacts(file, file, 1001, 1010, colorspace="linear"), **changes)


def facts(**changes: Any) -> NodeFacts:
    plain = NodeFacts(
        name="Faceplate_Look1",
        effect=descriptor("look"),
        frames=tuple(range(1001, 1011)),
        source=InputFacts(a_read()),
        mask=None,
        style=None,
        params={},
        edits=[],
        folder="/results",
    )
    return replace(plain, **changes)


def test_a_file_is_used_as_it_is() -> None:
    found = plan(facts(params={"degree": 0.5}, face="all", mattes=("face",)))
    (job,) = found.jobs
    assert (found.precomps, found.offset) == ({}, 0)
    assert (job.plate.pattern, job.plate.colorspace, job.frames, job.shot_range) == (
        PLATE,
        "lin_rec709",
        "1001-1010",
        "1001-1010",
    )
    assert job.output == f"/results/Faceplate_Look1/{found.made}/sh010.%04d.exr"
    assert (job.effect, job.params, job.face, job.matte_channels) == ("look", {"degree": 0.5}, "all", ["face"])


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"source": InputFacts(None, "Grade1")}, "made in the script"),
        ({"source": InputFacts(a_read("/shots/clip.mov"))}, ".mov files are read by Nuke only"),
        ({"source": InputFacts(a_read("shots/sh010.%04d.exr"))}, "relative"),
        ({"source": InputFacts(a_read(frame="frame*2"))}, "retimed"),
        ({"source": InputFacts(a_read(frame_mode="offset", frame="5"))}, "retimed"),
        ({"source": InputFacts(a_read(still=True))}, "still"),
        ({"frames": tuple(range(1001, 1012))}, "range goes beyond"),
        ({"source": InputFacts(a_read(colorspace="AlexaV3LogC"))}, "AlexaV3LogC"),
        ({"views": ("left", "right")}, "no %V"),
    ],
)
def test_a_file_that_is_not_certain_is_written_by_nuke(changes: dict[str, Any], why: str) -> None:
    found = plan(facts(**changes))
    assert why in found.why["source"]
    assert found.precomps["source"].startswith(f"/results/Faceplate_Look1/pre-{found.inputs}/source.")
    assert found.offset == 0
    assert found.jobs[0].plate.colorspace == "lin_rec709"


def test_start_at_moves_frames_and_keyframes_to_the_plates_numbers() -> None:
    read = a_read(frame_mode="start_at", frame="1")
    assert time_offset(read) == 1 - 1001
    curve = {"keys": [[1, 0.0], [10, 1.0]]}
    found = plan(facts(source=InputFacts(read), frames=tuple(range(1, 11)), params={"degree": curve}))
    (job,) = found.jobs
    assert (job.frames, job.params) == ("1001-1010", {"degree": {"keys": [[1001, 0.0], [1010, 1.0]]}})
    assert found.offset + found.frames[0] == 1


def test_mask_and_plate_go_by_the_same_numbers() -> None:
    moved = InputFacts(a_read(frame_mode="start at", frame="1"))
    frames = tuple(range(1, 11))
    aligned = InputFacts(a_read("/shots/roto.%04d.exr", frame_mode="start at", frame="1"))
    still = InputFacts(a_read("/shots/garbage.exr", still=True))
    for mask in (aligned, still):
        found = plan(facts(source=moved, mask=mask, frames=frames))
        assert found.precomps == {}
        assert found.jobs[0].mask is not None
        assert found.jobs[0].mask.pattern == mask.read.file if mask.read else ""
    drawn = plan(facts(source=moved, mask=InputFacts(None, "Roto1"), frames=frames))
    assert set(drawn.precomps) == {"source", "mask"}
    assert (drawn.offset, drawn.jobs[0].frames) == (0, "1-10")
    other = InputFacts(a_read("/shots/roto.%04d.exr", first=1, last=10))
    found = plan(facts(source=moved, mask=other, frames=frames))
    assert set(found.precomps) == {"source"}, "the mask's file has the script's numbers, the plate's has not"


@pytest.mark.parametrize(
    ("channel", "read", "used"),
    [
        ("rgba.alpha", a_read(), "A"),
        ("rgba.green", a_read(), "G"),
        ("rgba.green", a_read(colorspace="sRGB"), ""),
        ("rgba.green", a_read(colorspace="sRGB", raw=True), "G"),
        ("rgba.alpha", a_read(colorspace="sRGB"), "A"),
        ("matte.core", a_read(), ""),
    ],
)
def test_the_masks_channel(channel: str, read: ReadFacts, used: str) -> None:
    found = plan(facts(mask=InputFacts(read), mask_channel=channel))
    mask = found.jobs[0].mask
    assert mask is not None
    assert (mask.channel, "mask" in found.precomps) == (used or "A", not used)


@pytest.mark.parametrize(
    ("style", "used"),
    [
        (a_read("/art/vangogh.png", still=True, colorspace="default (sRGB)"), "/art/vangogh.png"),
        (a_read("/art/vangogh.png", still=True, colorspace="linear"), ""),
        (a_read("/art/paint.%04d.exr"), "/art/paint.1003.exr"),
        (a_read("/art/paint.exr", still=True, colorspace="sRGB"), ""),
        (a_read("/art/paint.%04d.exr", last=1002), ""),
    ],
)
def test_the_style_is_one_picture_at_the_first_frame(style: ReadFacts, used: str) -> None:
    found = plan(facts(style=InputFacts(style), frames=(1003, 1004)))
    assert found.jobs[0].style_image == (used or found.precomps["style"])
    assert found.style_frame == 1003


def test_colour_is_named_as_ocio_names_it() -> None:
    assert plain_space("default (Linear Rec.709 (sRGB))") == "Linear Rec.709 (sRGB)"
    assert plain_space("Linear Rec.709 (sRGB)") == "Linear Rec.709 (sRGB)"
    ocio = ColorFacts(True, "/show/config.ocio", "ACES - ACEScg")
    assert file_colorspace(a_read(colorspace="scene_linear (ACES - ACEScg)"), ocio) == "ACES - ACEScg"
    assert file_colorspace(a_read(colorspace="sRGB", raw=True), ocio) == "ACES - ACEScg"
    assert file_colorspace(a_read(colorspace="default (sRGB)"), ColorFacts()) is None
    (job,) = plan(facts(color=ocio, source=InputFacts(None, "x"))).jobs
    assert (job.plate.colorspace, job.ocio) == ("ACES - ACEScg", "/show/config.ocio")
    assert plan(facts(colorspace="ACEScg")).jobs[0].plate.colorspace == "ACEScg"


def test_views_are_jobs_of_their_own() -> None:
    read = a_read("/shots/%V/sh010_%v.%04d.exr")
    found = plan(facts(source=InputFacts(read), views=("left", "right")))
    assert [job.plate.pattern for job in found.jobs] == [
        "/shots/left/sh010_l.%04d.exr",
        "/shots/right/sh010_r.%04d.exr",
    ]
    assert found.result.endswith("/sh010.%V.%04d.exr")
    assert found.jobs[1].output.endswith("/sh010.right.%04d.exr")


@pytest.mark.parametrize(
    "changes",
    [
        {"params": {"degree": 0.5}},
        {"edits": [["smile", 0.5]]},
        {"face": "all"},
        {"mask": InputFacts(a_read("/shots/roto.%04d.exr"))},
        {"source": InputFacts(a_read(raw=True))},
        {"source": InputFacts(a_read("/shots/other.%04d.exr"))},
        {"source": InputFacts(None, "Grade")},
        {"mattes": ("face",)},
        {"color": ColorFacts(True, "", "ACEScg")},
        {"effect": replace(descriptor("look"), version="9.9")},
    ],
)
def test_whatever_decides_the_picture_decides_the_folder(changes: dict[str, Any]) -> None:
    assert plan(facts(**changes)).made != plan(facts()).made


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Faceplate_Look7"},
        {"folder": "/elsewhere"},
        {"frames": (1002,)},
        {"source": InputFacts(replace(a_read(), file="Z:/shots/sh010.%04d.exr"))},
    ],
)
def test_what_does_not_decide_the_picture_does_not(changes: dict[str, Any]) -> None:
    assert plan(facts(**changes)).made == plan(facts()).made


def test_a_result_is_out_of_date_when_files_or_values_change(tmp_path: Path) -> None:
    for frame in (1001, 1002):
        (tmp_path / f"p.{frame}.exr").write_bytes(b"plate")
    read = a_read(str(tmp_path / "p.%04d.exr"), last=1002)
    node = facts(source=InputFacts(read), frames=(1001, 1002), folder=str(tmp_path / "out"))
    now = plan(node)
    assert stale_reason(now, "", "") == "it has not been rendered"
    assert "2 of 2 frames are not rendered: 1001-1002" in stale_reason(now, now.made, now.inputs)
    for frame in (1001, 1002):
        path = Path(at_frame(now.result, frame))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"result")
    assert stale_reason(now, now.made, now.inputs) == ""
    changed = plan(replace(node, params={"degree": 0.1}))
    assert "values" in stale_reason(changed, now.made, now.inputs)
    (tmp_path / "p.1002.exr").write_bytes(b"another plate")
    assert "inputs" in stale_reason(plan(node), now.made, now.inputs)
    graph = InputFacts(None, "Grade", ((str(tmp_path / "p.%04d.exr"), 1001, 1002),))
    before = plan(replace(node, source=graph))
    os.utime(tmp_path / "p.1001.exr", (1, 1))
    assert plan(replace(node, source=graph)).inputs != before.inputs


def test_patterns(tmp_path: Path) -> None:
    assert at_frame("/a.0001/b_12.####.exr", 7) == "/a.0001/b_12.0007.exr"
    assert at_frame("/a/b.%d.exr", -3) == "/a/b.-3.exr"
    assert at_frame("/a/still.exr", 5) == "/a/still.exr"
    assert with_view("/a/%V/b_%v.exr", "left") == "/a/left/b_l.exr"
    (tmp_path / "x.0002.exr").touch()
    assert missing_frames(str(tmp_path / "x.####.exr"), (1, 2, 3)) == (1, 3)


def test_ranges() -> None:
    assert script_frames("input", (5, 6), (1, 9), (2, 3), 1) == (4, 5, 6, 7)
    assert script_frames("project", (5, 6), (1, 2), (2, 3), 0) == (1, 2)
    assert script_frames("custom", (5, 6), (1, 9), (2, 2), 0) == (2,)


def test_sampling_keeps_every_frame_and_few_keys() -> None:
    curve = sampled(lambda frame: float(frame > 5), range(1, 11))
    assert [f for f, _ in curve.keys] == [1, 5, 6, 10]
    wild = sampled(lambda frame: frame * frame, range(1, 5))
    assert [wild.at(f) for f in range(1, 5)] == [1, 4, 9, 16]


def test_values_of_a_job() -> None:
    effect = descriptor("retouch")
    values = {
        "p_mix": Curve.constant(1.0),
        "p_lip_tint": Curve.constant((0.5, 0.1, 0.1)),
        "e_smile": Curve.constant(0.5),
        "e_age": Curve(((1.0, 0.0), (9.0, 1.0))),
        "e_jaw": Curve.constant(0.0),
    }
    params, edits = job_values(effect, values, "age")
    assert params == {"lip_tint": [0.5, 0.1, 0.1]}
    assert edits == [["age", {"keys": [[1.0, 0.0], [9.0, 1.0]]}], ["smile", 0.5]]
    with pytest.raises(FaceplateError, match="Did you mean 'smile'"):
        job_values(effect, values, "smil")
