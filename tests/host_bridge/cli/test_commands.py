"""The other commands, and how a running job is shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.host_bridge.cli.conftest import ROOT, Desk, names, render_words
from tests.portrait import COLORSPACE

RETOUCH = ("--effect", "retouch", "--edit", "smile=0.5", "--frames", "1001-1003")

_LOADED = """
import sys
from host_bridge.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"torch", "numpy", "cv2", "mediapipe", "OpenImageIO", "inference_server"}
print("loaded:", sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("words", [("--help",), ("render", "--help"), ("jobs", "list", "--help")])
def test_help_is_quick_and_loads_nothing_of_the_server(words: tuple[str, ...]) -> None:
    said = subprocess.run(
        [sys.executable, "-c", _LOADED, *words], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )
    assert said.stdout.endswith("loaded: []\n")
    assert "usage: faceplate" in said.stdout


def test_every_option_of_render_is_explained() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "host_bridge.cli", "render", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    options = re.findall(r"^  (--[a-z-]+)(?: [A-Z=.]+)?(.*)$", said.stdout, re.MULTILINE)
    assert len(options) > 25
    lines = said.stdout.splitlines()
    for name, rest in options:
        after = lines[next(i for i, line in enumerate(lines) if line.startswith(f"  {name}")) + 1 :]
        assert rest.strip() or (after and after[0].startswith(" " * 20)), f"{name} has no help"
    for text in ("exit status: 0 ok", "plate:", "faces and masks:", "1001:0,1024:1"):
        assert text in said.stdout


def test_farm_lines(desk: Desk, shot: str, out: Path) -> None:
    said = desk.render(shot, str(out / "r.%04d.exr"), *RETOUCH)  # no terminal here, so these are the default
    assert said.status == 0, said.err
    percents = [int(p) for p in re.findall(r"^Progress: (\d+)%$", said.err, re.MULTILINE)]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert [int(p) for p in re.findall(r"^openjd_progress: (\d+)$", said.err, re.MULTILINE)] == percents
    assert re.search(r"^openjd_status: 3 frames on cpu, shot [0-9a-f]{12}$", said.err, re.MULTILINE)
    assert re.findall(r"^frame (\d+) rendered /", said.err, re.MULTILINE) == ["1001", "1002", "1003"]
    assert "openjd_fail" not in said.err
    failed = desk.render(shot, str(out / "r.%04d.exr"), "--effect", "look", "--frames", "2001", "--progress", "farm")
    assert failed.status == 3
    fail = re.findall(r"^openjd_fail: (.*)$", failed.err, re.MULTILINE)
    assert len(fail) == 1
    assert "(plate.missing_frame)" in fail[0]


def test_json_lines(desk: Desk, shot: str, out: Path) -> None:
    said = desk.render(shot, str(out / "r.%04d.exr"), *RETOUCH, "--progress", "json")
    assert (said.status, said.err) == (0, "")
    events = [json.loads(line) for line in said.out.splitlines()]
    done = [e for e in events if e["type"] == "frame_done"]
    assert [(e["frame"], e["path"]) for e in done] == [(f, str(out / f"r.{f}.exr")) for f in (1001, 1002, 1003)]
    result = events[-1]
    assert (result["type"], result["state"], result["done"], result["error"]) == ("result", "finished", 3, None)
    assert re.fullmatch(r"[0-9a-f]{12}", result["shot"])
    failed = desk.render(shot, str(out / "r.%04d.exr"), "--effect", "look", "--frames", "2001", "--progress", "json")
    assert failed.status == 3
    result = json.loads(failed.out.splitlines()[-1])
    assert (result["state"], result["error"]["code"], result["error"]["frame"]) == (
        "failed",
        "plate.missing_frame",
        2001,
    )


def test_a_bar_for_people(desk: Desk, shot: str, out: Path) -> None:
    said = desk.render(shot, str(out / "r.%04d.exr"), *RETOUCH, "--progress", "bar")
    assert said.status == 0
    assert f"[{'#' * 30}] 3/3" in said.err
    assert re.search(r"finished: 3 frames in [\d.]+ s, [\d.]+ frames/s", said.err)


def test_analyze_takes_an_effect_and_refuses_its_options_without_it(desk: Desk, shot: str) -> None:
    where = ("--in", shot, "--colorspace", COLORSPACE, "--shot-range", "1001-1002")
    said = desk.run("analyze", *where, "--effect", "look", "--style", "comic_ink")
    assert said.status == 0, said.err
    assert re.fullmatch(r"[0-9a-f]{12}\n", said.out)
    said = desk.run("analyze", *where, "--style", "comic_ink")
    assert said.status == 2
    assert "--effect" in said.err


def test_analyze_prints_an_id_that_render_takes(desk: Desk, shot: str, out: Path) -> None:
    said = desk.run("analyze", "--in", shot, "--colorspace", COLORSPACE, "--shot-range", "1001-1002")
    assert said.status == 0, said.err
    assert re.fullmatch(r"[0-9a-f]{12}\n", said.out)
    identity = said.out.strip()
    render = desk.render(shot, str(out / "r.%04d.exr"), "--effect", "look", "--frames", "1002", "--shot", identity)
    assert render.status == 0, render.err
    assert f"shot {identity}" in render.err
    assert "analyse" not in render.err
    outside = desk.render(shot, str(out / "r.%04d.exr"), "--effect", "look", "--frames", "1004", "--shot", identity)
    assert (outside.status, "(shot.stale)" in outside.err) == (3, True), outside.err
    unknown = desk.render(shot, str(out / "r.%04d.exr"), "--effect", "look", "--shot", "0123456789ab")
    assert (unknown.status, "(shot.unknown)" in unknown.err) == (3, True), unknown.err
    assert names(out) == ["r.1002.exr"]


def test_preview_writes_a_picture(desk: Desk, shot: str, tmp_path: Path) -> None:
    whole = str(tmp_path / "new" / "whole.png")
    common = ("preview", "--in", shot, "--colorspace", COLORSPACE, "--frame", "1002", "--effect", "look")
    said = desk.run(*common, "--degree", "0.9", "--crop", "frame", "--size", "100", "--out", whole)
    assert said.status == 0, said.err
    assert said.out.startswith(f"{whole}  100x100  ")
    picture = cv2.imread(whole)
    assert picture.shape == (100, 100, 3)
    face = str(tmp_path / "face.png")
    said = desk.run(*common, "--show", "matte", "--size", "64", "--out", face)
    assert said.status == 0, said.err
    matte = cv2.imread(face)
    assert max(matte.shape[:2]) == 64
    assert (matte.min(), matte.max()) == (0, 255)
    (tmp_path / "file").write_text("in the way")
    said = desk.run(*common, "--out", str(tmp_path / "file" / "p.png"))
    assert (said.status, "(plate.write_failed)" in said.err) == (4, True), said.err
    said = desk.run(*common, "--size", "4", "--out", face)
    assert (said.status, "(request.bad_value)" in said.err) == (2, True), said.err


def test_effects_are_listed_and_described(desk: Desk) -> None:
    listed = desk.run("effects")
    assert listed.status == 0, listed.err
    named = {line.split()[0] for line in listed.out.splitlines() if line and line[0] != "`"}
    assert named == {"look", "retouch", "two_stage", "keyframe", "vtoonify", "style_portrait"}
    one = desk.run("effects", "retouch")
    for text in ("--edit", "smile", "-1..1 (0)", "lip_tint", "replace|delta (delta)"):
        assert text in one.out
    assert "group" not in one.out
    assert max(len(line) for line in one.out.splitlines()) <= 120
    data = json.loads(desk.run("effects", "look", "--json").out)
    assert (data["identifier"], data["kind"]) == ("look", "stylize")
    assert {d["identifier"] for d in json.loads(desk.run("effects", "--json").out)} == named
    unknown = desk.run("effects", "lok")
    assert (unknown.status, "'look'" in unknown.err) == (2, True)


def test_jobs_are_listed_shown_and_resumed(desk: Desk, shot: str, out: Path) -> None:
    (out / "in").mkdir(parents=True)
    said = desk.render(shot, str(out / "r.%04d.exr"), "--effect", "look", "--frames", "1010-1011")
    assert said.status == 3, said.err
    newest = json.loads(desk.run("jobs", "list", "--json").out)[0]
    assert (newest["state"], newest["error"]["code"]) == ("failed", "plate.missing_frame")
    job = newest["job_id"]
    line = desk.run("jobs", "list", "--state", "failed").out.splitlines()[0]
    assert line.startswith(job[:12])
    assert "plate.missing_frame" in line
    shown = desk.run("jobs", "show", job[:8])
    assert shown.status == 0, shown.err
    for text in (shot, str(out / "r.%04d.exr"), "1010-1011", "frame 1011", "hold or skip"):
        assert text in shown.out
    # The artist puts the missing frame there and resumes: no server restart, no new submission.
    later = Path(shot % 1011)
    later.write_bytes(Path(shot % 1010).read_bytes())
    try:
        resumed = desk.run("jobs", "resume", job[:8])
        assert resumed.status == 0, resumed.err
        assert resumed.out.split()[1] in ("queued", "running")
        follow = desk.render(shot, str(out / "x.%04d.exr"), "--effect", "look", "--frames", "1001")
        assert follow.status == 0, follow.err  # one worker: the resumed job has ended before this one
        assert names(out) == ["in", "r.1010.exr", "r.1011.exr", "x.1001.exr"]
        assert desk.run("jobs", "show", job[:8]).out.split()[1] == "finished"
    finally:
        later.unlink()
    cancelled = desk.run("jobs", "cancel", job[:8])
    assert (cancelled.status, cancelled.out.split()[1]) == (0, "finished")
    assert desk.run("jobs", "show", "ffffffffffff").status == 2
    assert desk.run("jobs", "list", "--state", "lost").status == 2


def test_status(desk: Desk) -> None:
    desk.run("effects")  # starts a server if none runs
    said = desk.run("status")
    assert said.status == 0, said.err
    assert re.search(r"faceplate \S+ \(pid \d+\) on tcp://127\.0\.0\.1:\d+, ping [\d.]+ ms", said.out)
    assert re.search(r"^  cpu +(idle|starting|busy)", said.out, re.MULTILINE)
    found = desk.server()
    by_path = desk.run("status", "--server", str(desk.runtime / "connection.json"), "--json")
    assert json.loads(by_path.out)["welcome"]["pid"] == found["welcome"]["pid"]


def test_a_private_server_for_one_command(desk: Desk, shot: str, tmp_path: Path) -> None:
    """Its frames are the shared server's, it uses the shared analysis, and nothing of it is left."""
    ours, theirs = str(tmp_path / "ours" / "r.%04d.exr"), str(tmp_path / "theirs" / "r.%04d.exr")
    assert desk.render(shot, theirs, *RETOUCH).status == 0
    before = desk.server()["welcome"]["pid"]
    private = tmp_path / "private"
    private.mkdir()
    said = desk.run(*render_words(shot, ours, *RETOUCH, "--local"), TMPDIR=str(private))
    assert said.status == 0, said.err
    assert "analyse" not in said.err
    for frame in (1001, 1002, 1003):
        assert Path(ours % frame).read_bytes() == Path(theirs % frame).read_bytes()
    assert names(private) == []
    assert desk.server()["welcome"]["pid"] == before


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("models", "--help"), "usage: faceplate models"),
        (("models", "list"), "vtoonify"),
        (("bench", "--help"), "usage: faceplate bench"),
        (("shots", "list"), ""),
    ],
)
def test_the_commands_of_this_machine_are_reached(tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    said = Desk(tmp_path).run(*words)
    assert said.status == 0, said.err
    assert expected in said.out


def test_doctor_finds_nothing_wrong(desk: Desk) -> None:
    said = desk.run("doctor")
    assert said.status == 0, said.out + said.err
    for name in ("python", "packages", "device", "ocio", "exr", "faces", "shots", "state", "server"):
        assert re.search(rf"^(ok|note) +{name} ", said.out, re.MULTILINE), said.out
