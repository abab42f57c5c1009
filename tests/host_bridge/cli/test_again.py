"""`--skip-existing` keeps a frame only if this very job made it, whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.host_bridge.cli.conftest import SMALL, Desk, rgb
from tests.plate_files import PartSpec, write_exr
from tests.portrait import channels, moved, write_shot

WORDS = ("--effect", "retouch", "--skip-existing")


class Run:
    """Renders of one small shot into one folder; each tells what was done with its frames."""

    def __init__(self, desk: Desk, folder: Path) -> None:
        self._desk = desk
        self.plate = write_shot(folder / "in", range(1001, 1004), size=SMALL)
        self.out = str(folder / "out" / "r.%04d.exr")

    def again(self, *words: str) -> dict[int, str]:
        said = self._desk.render(self.plate, self.out, *WORDS, *words)
        assert said.status == 0, said.err
        return {int(f): s for f, s in re.findall(r"^frame (\d+) (\w+) ", said.err, re.MULTILINE)}


def _all(status: str) -> dict[int, str]:
    return dict.fromkeys((1001, 1002, 1003), status)


def test_only_frames_of_this_very_job_are_kept(desk: Desk, tmp_path: Path) -> None:
    run = Run(desk, tmp_path)
    edit = ("--edit", "smile=0.5")
    assert run.again(*edit) == _all("rendered")
    first = {f: Path(run.out % f).read_bytes() for f in (1001, 1002, 1003)}
    assert run.again(*edit) == _all("kept")
    assert run.again(*edit, "--frames", "1002") == {1002: "kept"}

    whole = Path(run.out % 1002)
    whole.write_bytes(first[1002][:-500])
    assert run.again(*edit) == {1001: "kept", 1002: "rendered", 1003: "kept"}
    whole.unlink()
    assert run.again(*edit) == {1001: "kept", 1002: "rendered", 1003: "kept"}
    assert {f: Path(run.out % f).read_bytes() for f in first} == first

    assert run.again("--edit", "smile=0.6") == _all("rendered")
    assert run.again(*edit, "--set", "mix=0.9") == _all("rendered")
    assert run.again(*edit, "--matte-channels", "face") == _all("rendered")
    # Without the option nothing is kept, and the frames are what they were.
    said = desk.render(run.plate, run.out, "--effect", "retouch", *edit)
    assert said.status == 0, said.err
    assert "kept" not in said.err
    assert {f: Path(run.out % f).read_bytes() for f in first} == first


def test_a_changed_mask_frame_is_rendered_again(desk: Desk, tmp_path: Path) -> None:
    run = Run(desk, tmp_path)
    white = np.ones((SMALL, SMALL), np.float16)
    mask = tmp_path / "mask"
    mask.mkdir()
    for frame in (1001, 1002, 1003):
        write_exr(mask / f"m.{frame}.exr", PartSpec({"A": white}))
    words = ("--edit", "smile=0.5", "--mask", str(mask / "m.%04d.exr"))
    assert run.again(*words) == _all("rendered")
    assert run.again(*words) == _all("kept")
    write_exr(mask / "m.1002.exr", PartSpec({"A": white * np.float16(0.5)}))
    assert run.again(*words) == {1001: "kept", 1002: "rendered", 1003: "kept"}


def test_a_changed_plate_is_rendered_again(desk: Desk, tmp_path: Path) -> None:
    """The analysis is of the whole shot, so another frame in it may move the face in all of them."""
    run = Run(desk, tmp_path)
    edit = ("--edit", "smile=0.5")
    assert run.again(*edit) == _all("rendered")
    brighter = channels(moved(1002, SMALL) * np.float32(1.25))
    write_exr(run.plate % 1002, PartSpec(brighter))
    assert run.again(*edit) == _all("rendered")
    outside = rgb(run.plate % 1002) == rgb(run.out % 1002)
    assert outside.mean() > 0.3  # made of the new frame


def test_a_copied_frame_is_kept_only_while_it_is_the_plate(desk: Desk, tmp_path: Path) -> None:
    run = Run(desk, tmp_path)
    edit = ("--edit", "smile=1001:0,1003:1")
    assert run.again(*edit) == {1001: "identity", 1002: "rendered", 1003: "rendered"}
    assert run.again(*edit) == _all("kept")
    Path(run.out % 1001).write_bytes(Path(run.plate % 1002).read_bytes())
    assert run.again(*edit) == {1001: "identity", 1002: "kept", 1003: "kept"}
    assert Path(run.out % 1001).read_bytes() == Path(run.plate % 1001).read_bytes()
