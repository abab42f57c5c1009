"""A clip without usable files: rendered ungraded and linear from a timeline of its own, and nothing left behind."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from host_bridge.errors import HostError
from host_bridge.hosts import resolve_render
from host_bridge.hosts.resolve_render import exr_half
from tests.fakes import resolve as fake
from tests.host_bridge.hosts.resolve_desk import COUNT, FIRST, LAST, RECORD, Suite, open_suite


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    monkeypatch.setenv("FACEPLATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(resolve_render, "POLL_S", 0.001)
    for frame in range(FIRST, LAST + 1):
        (tmp_path / f"sh010.{frame}.exr").write_bytes(f"picture {frame}".encode())
    suite = open_suite(str(tmp_path / "sh010.%04d.exr"))
    suite.movie()
    return suite


def test_the_clip_is_rendered_ungraded_linear_and_lossless(suite: Suite) -> None:
    before = fake.snapshot(suite.project)
    shot = suite.host().shot()
    assert fake.snapshot(suite.project) == before
    (settings,) = suite.project._rendered
    assert (settings["format"], settings["codec"]) == ("exr", "RGBHalfZIP")
    assert not settings["graded"]
    assert suite.item._media is not None
    assert suite.item._media._grade == ["Primaries"]  # the artist's grade, which new clips share
    assert (settings["colorSpaceOutput"], settings["colorSpaceOutputGamma"]) == ("Rec.2020", "Linear")
    assert (settings["colorSpaceOutputToneMapping"], settings["timelineResolutionWidth"]) == ("None", "144")
    assert shot.job.plate.colorspace == "Linear Rec.2020"
    folder = Path(shot.job.plate.pattern).parent
    assert sorted(p.name for p in folder.iterdir()) == [
        "colorspace.json",
        *(f"sh010.{n}.exr" for n in range(1001, 1006)),
    ]
    assert [(folder / f"sh010.{n}.exr").read_text() for n in range(1001, 1006)] == [
        f"picture {n}" for n in range(1004, 1009)
    ]
    assert shot.offset == RECORD - 1001


def test_it_is_rendered_once(suite: Suite) -> None:
    host = suite.host()
    job = host.prepare(host.shot().job)
    assert job.plate.colorspace == "Linear Rec.2020"
    suite.host().shot()
    assert len(suite.project._rendered) == 1
    suite.clip(suite.item._media, COUNT, 1)
    suite.host().shot()
    assert len(suite.project._rendered) == 2
    os.utime(suite.folder / "sh010.mov", (1, 1))  # the movie was replaced
    suite.host().shot()
    assert len(suite.project._rendered) == 3


def test_older_versions_that_include_the_end(suite: Suite) -> None:
    suite.project._pool._end_included = True
    before = fake.snapshot(suite.project)
    suite.host().shot()
    assert fake.snapshot(suite.project) == before


def test_aces(suite: Suite) -> None:
    suite.project._settings["colorScienceMode"] = "acescct"
    host = suite.host()
    shot = host.shot()
    assert shot.job.plate.colorspace == "ACES2065-1"
    suite.project._pool._spaces = ("ACES2065-1",)
    host.place(replace(shot.job, output=suite.result(1001, 1005)))
    (folder,) = suite.project._pool._root._folders
    assert folder._clips[0]._properties["Input Color Space"] == "ACES2065-1"
    assert [(i._start, i._duration) for i in suite.timeline._tracks[1]] == [(RECORD, COUNT)]


def test_without_colour_management_the_artist_has_to_say(suite: Suite) -> None:
    suite.project._settings["colorScienceMode"] = "davinciYRGB"
    host = suite.host()
    job = host.shot().job
    with pytest.raises(HostError, match="nothing says how"):
        host.prepare(job)
    said = replace(job, plate=replace(job.plate, colorspace="ARRI LogC3 (EI800)"))
    assert host.prepare(said).plate.colorspace == "ARRI LogC3 (EI800)"


@pytest.mark.parametrize("fault", ["no exr", "nothing linear", "frames lost", "busy", "no size", "no version"])
def test_whatever_fails_leaves_nothing_behind(
    fault: str, suite: Suite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = suite.project
    if fault == "no exr":
        project._codecs["exr"] = {"RGB half (DWAA Compression)": "RGBHalfDWAA"}
    elif fault == "nothing linear":
        project._known = {**project._known, "colorSpaceOutputGamma": ("Gamma 2.4",)}
    elif fault == "frames lost":
        project._loses = 1
    elif fault == "busy":
        project._rendering, project._looks = ["theirs"], 9
    elif fault == "no version":
        monkeypatch.setattr(fake.TimelineItem, "AddVersion", lambda self, versionName, versionType: False)
    else:
        project._known = {**project._known, "timelineResolutionWidth": ("1920",)}
    before = fake.snapshot(project)
    with pytest.raises(HostError) as caught:
        suite.host().shot()
    assert caught.value.remedy
    assert fake.snapshot(project) == before
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert not list((tmp_path / "cache").rglob(".render-*"))
    assert project._rendering == (["theirs"] if fault == "busy" else [])
    if fault == "frames lost":
        assert "4 of 5 frames (disk full)" in caught.value.message


def test_an_interruption_stops_the_render_and_leaves_nothing_behind(suite: Suite, tmp_path: Path) -> None:
    before = fake.snapshot(suite.project)
    host = suite.host()
    job = replace(host.source(), renders=True)

    def interrupt(percent: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve_render.render_clip(suite.root(), job.clip, job.pattern, report=interrupt)
    assert fake.snapshot(suite.project) == before
    assert suite.project._rendering == []
    assert not list((tmp_path / "cache").rglob("*.exr"))


def test_formats_and_codecs_are_asked_for(suite: Suite) -> None:
    suite.project._formats = {"OpenEXR-Sequenz": "exr", "QuickTime": "mov"}
    suite.project._codecs = {"OpenEXR-Sequenz": {"RGB Half (PIZ)": "HP", "RGB half (DWAB)": "HD", "RGB Float": "F"}}
    assert exr_half(suite.root().GetProjectManager().GetCurrentProject()) == ("OpenEXR-Sequenz", "HP")
