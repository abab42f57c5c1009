"""What artists and wranglers get wrong: each has its exit status and a text that helps, and leaves nothing behind."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from inference_server.plates.reader import read_plate
from tests.host_bridge.cli.conftest import SMALL, Desk, Said, frames_in, names, render_words, rgb, wait_until
from tests.plate_files import PartSpec, write_deep, write_exr
from tests.portrait import channels, moved, write_shot

LOOK = ("--effect", "look", "--frames", "1001")
RETOUCH = ("--effect", "retouch", "--frames", "1001")


BAD_ARGUMENTS: list[tuple[tuple[str, ...], str, list[str]]] = [
    (("--effect", "lok"), "effect.unknown", ["'look'", "retouch"]),
    ((*LOOK, "--set", "degre=1"), "effect.parameter", ["'degree'", "line_weight"]),
    ((*LOOK, "--degre", "1"), "request.unknown_name", ["'--degree'", "--line-weight", "--help"]),
    ((*LOOK, "--fram", "1002"), "request.unknown_name", ["'--frames'"]),
    ((*LOOK, "--set", "style=catoon"), "effect.parameter", ["'cartoon'", "watercolour"]),
    ((*LOOK, "--set", "degree=3"), "effect.parameter", ["degree cannot be 3", "between 0 and 1"]),
    ((*LOOK, "--set", "degree=high"), "effect.parameter", ["degree cannot be 'high'", "a number"]),
    ((*LOOK, "--set", "levels=2.5"), "effect.parameter", ["a whole number"]),
    ((*LOOK, "--degree", "1001:0,x:1"), "effect.parameter", ["degree", "1001:0,1024:1"]),
    ((*LOOK, "--degree", "1001:0,1002:7"), "effect.parameter", ["degree cannot be 7"]),
    ((*LOOK, "--style", "1001:pencil,1002:cartoon"), "effect.parameter", ["style does not animate"]),
    ((*LOOK, "--set", "degree"), "request.bad_value", ["--set degree=0.8"]),
    ((*LOOK, "--degree"), "request.bad_value", ["--degree needs a value"]),
    ((*LOOK, "--line-weight", "--degree", "1"), "request.bad_value", ["--line-weight needs a value"]),
    ((*LOOK, "shot.1001.exr"), "request.bad_value", ["'shot.1001.exr'", "quotes"]),
    ((*LOOK, "--edit", "smile=1"), "effect.parameter", ["look has no edits", "--set"]),
    ((*RETOUCH, "--edit", "smil=1"), "effect.parameter", ["'smile'", "age"]),
    ((*RETOUCH, "--smile", "1"), "effect.parameter", ["--edit smile=0.5"]),
    ((*RETOUCH, "--edit", "mix=1"), "effect.parameter", ["--set mix=VALUE"]),
    ((*RETOUCH, "--edit", "smile=2"), "effect.parameter", ["between -1 and 1"]),
    ((*LOOK, "--matte-channels", "face,lip"), "request.unknown_name", ["'lips'", "composite"]),
    ((*LOOK, "--colorspace", "ACESg"), "color.unknown_space", ["'ACEScg'", "scene_linear"]),
    ((*LOOK, "--colorspace", "lin_rec79"), "color.unknown_space", ["'lin_rec709'"]),
    ((*LOOK, "--ocio", "nowhere.ocio"), "color.config", ["nowhere.ocio", "$OCIO"]),
    ((*LOOK, "--compression", "zpi"), "plate.format", ["'zip'", "piz"]),
    ((*LOOK, "--layer", "beauty"), "plate.layer", ["'beauty'", "R)"]),
    ((*LOOK, "--face", "somebody"), "face.unknown", ["largest", "all"]),
    ((*LOOK, "--face", "9"), "face.unknown", ["largest", "1"]),
    (("--effect", "look", "--frames", "1001-10x"), "request.frame_range", ["1001-1100x2"]),
]


@pytest.fixture(scope="module")
def refused(desk: Desk, shot: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Said, list[str]]]:
    """How each of BAD_ARGUMENTS ended and what it wrote; two at a time: mostly it is Python that starts."""
    folder = tmp_path_factory.mktemp("refused")
    desk.run("effects")  # the server is there

    def ask(number: int) -> tuple[Said, list[str]]:
        out = folder / str(number)
        return desk.render(shot, str(out / "r.%04d.exr"), *BAD_ARGUMENTS[number][0]), names(out)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, range(len(BAD_ARGUMENTS))))


@pytest.mark.parametrize("number", range(len(BAD_ARGUMENTS)), ids=[" ".join(words) for words, _, _ in BAD_ARGUMENTS])
def test_a_bad_argument_is_named_and_nothing_is_written(refused: list[tuple[Said, list[str]]], number: int) -> None:
    said, written = refused[number]
    _, code, helps = BAD_ARGUMENTS[number]
    assert said.status == 2, said.err
    assert f"({code})" in said.err
    told = said.err[said.err.rindex("error: ") :]
    for word in helps:
        assert word in told, told
    assert written == []
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("render",),
        ("render", "--in", "a", "--out", "b", "--effect", "look", "--mask-mode", "minus"),
        ("jobs", "show", "not-an-id"),
        ("rendr",),
        ("status", "--jsn"),
    ],
)
def test_a_bad_command_line_needs_no_server(tmp_path: Path, words: tuple[str, ...]) -> None:
    said = Desk(tmp_path).run(*words)
    assert said.status == 2
    assert "Traceback" not in said.err
    assert not (tmp_path / "run").exists()


def _refused(desk: Desk, plate: str, out: Path, status: int, code: str, *words: str, written: list[int]) -> str:
    """Render; see exit status, code and that nothing but `written` frames, whole ones, is in `out`."""
    said = desk.render(plate, str(out / "r.%04d.exr"), "--effect", "look", *words)
    assert (said.status, f"({code})" in said.err) == (status, True), said.err
    assert [n for n in names(out) if n.startswith(".")] == []
    assert frames_in(out) == written
    for frame in written:
        read_plate(str(out / f"r.{frame}.exr"))
    return said.err


def test_no_frame_fits_the_pattern(desk: Desk, shot: str, out: Path) -> None:
    told = _refused(desk, shot.replace("shot.", "shat."), out, 3, "plate.no_frames", written=[])
    assert "shot.1001.exr" in told
    _refused(desk, "/nowhere/at/all.%04d.exr", out, 3, "plate.no_frames", written=[])


def test_a_missing_frame_is_an_error_held_or_skipped(desk: Desk, tmp_path: Path) -> None:
    plate = write_shot(tmp_path / "in", [1001, 1003], size=SMALL)
    told = _refused(desk, plate, tmp_path / "e", 3, "plate.missing_frame", "--frames", "1001-1003", written=[])
    assert "frame 1002" in told
    assert "hold or skip" in told
    common = ("--effect", "look", "--frames", "1001-1003", "--missing")
    assert desk.render(plate, str(tmp_path / "s" / "r.%04d.exr"), *common, "skip").status == 0
    assert frames_in(tmp_path / "s") == [1001, 1003]
    held = desk.render(plate, str(tmp_path / "h" / "r.%04d.exr"), *common, "hold")
    assert held.status == 0, held.err
    assert "frame 1002 held" in held.err
    assert frames_in(tmp_path / "h") == [1001, 1002, 1003]
    assert (rgb(tmp_path / "h" / "r.1002.exr") == rgb(tmp_path / "h" / "r.1001.exr")).all()
    going_on = ("--frames", "1001-1003", "--continue-on-error")
    _refused(desk, plate, tmp_path / "c", 4, "job.frames_failed", *going_on, written=[1001, 1003])


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _shrink(path: Path) -> None:
    write_exr(path, PartSpec(channels(moved(1002, SMALL - 24))))


def _deepen(path: Path) -> None:
    path.unlink()
    write_deep(path)


@pytest.mark.parametrize(
    ("spoil", "status", "code", "remedy"),
    [
        (_truncate, 3, "plate.truncated", "render it again"),
        (_empty, 3, "plate.empty_file", "Render it again"),
        (_shrink, 4, "plate.size_changed", "--shot-range"),
        (_deepen, 2, "plate.deep", "DeepToImage"),
    ],
)
def test_one_bad_frame_stops_the_job_or_is_left_out(
    desk: Desk, tmp_path: Path, spoil: object, status: int, code: str, remedy: str
) -> None:
    assert callable(spoil)
    plate = write_shot(tmp_path / "in", range(1001, 1004), size=SMALL)
    spoil(tmp_path / "in" / "shot.1002.exr")
    told = _refused(desk, plate, tmp_path / "a", status, code, written=[])
    for word in ("frame 1002", "shot.1002.exr", remedy):
        assert word in told
    told = _refused(desk, plate, tmp_path / "b", 4, code, "--continue-on-error", written=[1001, 1003])
    assert "(job.frames_failed)" in told
    failed = next(line for line in told.splitlines() if line.startswith("failed: frame"))
    for word in ("1002", "shot.1002.exr", code, remedy):
        assert word in failed
    for frame in (1001, 1003):  # the face was followed past the bad frame
        assert (rgb(plate % frame) != rgb(tmp_path / "b" / f"r.{frame}.exr")).any()


def test_the_output_is_not_the_input(desk: Desk, shot: str, tmp_path: Path) -> None:
    before = {name: (Path(shot).parent / name).read_bytes() for name in names(Path(shot).parent)}
    (tmp_path / "link").symlink_to(Path(shot).parent)
    for pattern in (shot, str(tmp_path / "link" / "shot.####.exr")):
        said = desk.render(shot, pattern, *LOOK)
        assert (said.status, "(job.output_is_input)" in said.err) == (2, True), said.err
    same = str(tmp_path / "o" / "r.%04d.exr")
    said = desk.render(shot, same, *LOOK, "--matte-out", same)
    assert (said.status, "(job.output_is_input)" in said.err) == (2, True), said.err
    assert {name: (Path(shot).parent / name).read_bytes() for name in before} == before
    assert names(Path(shot).parent) == sorted(before)


def test_an_output_that_cannot_be_written_is_told_before_anything_is_rendered(
    desk: Desk, shot: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    began = time.monotonic()
    said = desk.render(shot, str(tmp_path / "file" / "r.%04d.exr"), *LOOK)
    assert (said.status, "(plate.write_failed)" in said.err) == (4, True), said.err
    assert "is a file" in said.err
    said = desk.render(shot, str(tmp_path / "r.%04d.mov"), *LOOK)
    assert (said.status, "(plate.format)" in said.err) == (2, True), said.err
    said = desk.render(shot, str(tmp_path / "one.exr"), "--effect", "look")
    assert (said.status, "(plate.pattern)" in said.err) == (2, True), said.err
    assert time.monotonic() - began < 30
    assert names(tmp_path) == ["file"]


def test_no_server_and_none_may_be_started(tmp_path: Path, shot: str) -> None:
    desk = Desk(tmp_path)
    for words in (render_words(shot, str(tmp_path / "o.%04d.exr"), *LOOK, "--no-start"), ("status",)):
        said = desk.run(*words)
        assert said.status == 5, said.err
        assert "(server.not_running)" in said.err
        assert "faceplate serve" in said.err
    assert not (tmp_path / "o.1001.exr").exists()


def test_a_path_outside_the_roots_is_not_allowed(desk: Desk, shot: str, tmp_path: Path) -> None:
    """A farm task's private server with `roots`: it reads the plate, and may write below `allowed` only."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    roots = os.pathsep.join([str(allowed), str(Path(shot).parent)])
    words = render_words(shot, str(tmp_path / "out" / "r.%04d.exr"), *LOOK, "--local")
    said = desk.run(*words, FACEPLATE_ROOTS=roots)
    assert said.status == 7, said.err
    assert "(server.not_allowed)" in said.err
    assert names(tmp_path) == ["allowed"]


def test_a_full_queue_is_a_lack_of_resources(tmp_path: Path, shot: str) -> None:
    """One job may wait; it waits for the worker, which takes a few seconds to start. Its client cancels it."""
    desk = Desk(tmp_path, FACEPLATE_QUEUE_LENGTH="1")
    assert desk.run("serve", "--detach").status == 0
    first = desk.start(*render_words(shot, str(tmp_path / "a" / "r.%04d.exr"), "--effect", "look"))
    wait_until(lambda: '"state"' in desk.run("jobs", "list", "--json").out)
    said = desk.render(shot, str(tmp_path / "b" / "r.%04d.exr"), "--effect", "look")
    first.terminate()
    ended = desk.end(first)
    desk.run("stop")
    assert (said.status, "(server.busy)" in said.err) == (8, True), said.err
    assert ended.status == 6, ended.err
    assert names(tmp_path / "b") == []
