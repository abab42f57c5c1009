"""Frames appear whole or not at all, whatever goes wrong, and say what made them."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio
import pytest

from host_bridge.errors import FaceplateError, JobError, PlateError
from inference_server.plates import atomic
from inference_server.plates.atomic import clean_leftovers, replacing
from inference_server.plates.attributes import decode, encode
from inference_server.plates.layers import choose
from inference_server.plates.provenance import Provenance, provenance_of, read_provenance
from inference_server.plates.reader import read_bytes, read_plate
from inference_server.plates.sequence import parse_pattern
from inference_server.plates.types import PlateFrame
from inference_server.plates.writer import (
    can_copy,
    copy_plate,
    is_finished,
    matte_frame,
    with_mattes,
    write_plate,
)
from tests.plate_files import (
    PartSpec,
    independent_read,
    odd_attributes,
    rgba,
    same_bits,
    samples,
    write_exr,
    write_plate_file,
)
from tests.unprivileged import outcome_without_privileges

MADE = Provenance(
    effect="look",
    version="0.1.0",
    parameters={"degree": {"keys": [[1001, 0], [1024, 1]]}, "style": "cartoon ä"},
    models={"starter": "ab" * 32},
    job="0123456789abcdef",
    shot="s1",
    plan="cpu float32",
)


@pytest.fixture
def frame(tmp_path: Path) -> PlateFrame:
    (tmp_path / "in").mkdir()
    spec = PartSpec(rgba(), "rgba", attributes={**odd_attributes()})
    ids = PartSpec({"id": samples("uint", 24, 40)}, "ids")
    return read_plate(write_exr(tmp_path / "in" / "a.1001.exr", spec, ids), 1001)


def _everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_what_was_not_touched_comes_out_bit_for_bit(frame: PlateFrame, tmp_path: Path) -> None:
    part = frame.parts[0]
    red = part.channels["R"].copy()
    red[10:14, 20:25] = 0.5
    edited = replace(frame, parts=(replace(part, channels={**part.channels, "R": red}), frame.parts[1]))
    out = write_plate(edited, str(tmp_path / "out" / "a.1001.exr"), extra_attributes=MADE.attributes()).path
    again = read_plate(out, 1001)
    changed = again.parts[0].channels["R"].view(np.uint16) != part.channels["R"].view(np.uint16)
    assert changed.sum() == 20
    for name in "GBA":
        assert same_bits(again.parts[0].channels[name], part.channels[name])
    assert same_bits(again.parts[1].channels["id"], frame.parts[1].channels["id"])
    added = {name for name in again.parts[0].header if name not in part.header}
    assert added == {name for name in again.parts[0].header if name.startswith("faceplate:")} != set()
    assert {k: v for k, v in again.parts[0].header.items() if k not in added} == dict(part.header)


def test_the_same_frame_twice_is_the_same_file(frame: PlateFrame, tmp_path: Path) -> None:
    paths = [write_plate(frame, str(tmp_path / n), extra_attributes=MADE.attributes()).path for n in ("a.exr", "b.exr")]
    time.sleep(1.1)  # a writer that notes the time would show
    paths.append(write_plate(frame, str(tmp_path / "c.exr"), extra_attributes=MADE.attributes()).path)
    assert len({Path(p).read_bytes() for p in paths}) == 1


def test_provenance_is_written_and_read_back(frame: PlateFrame, tmp_path: Path) -> None:
    first = write_plate(frame, str(tmp_path / "b.exr"), extra_attributes=MADE.attributes(frame)).path
    assert read_provenance(first) == MADE
    assert read_provenance(frame.path) is None
    again = read_plate(first, 1001)
    assert all(provenance_of(part.header) == MADE for part in again.parts)
    second = replace(MADE, effect="retouch", job="f" * 16)
    path = write_plate(again, str(tmp_path / "c.exr"), extra_attributes=second.attributes(again)).path
    found = read_provenance(path)
    assert found is not None
    assert found.effect == "retouch"
    assert [entry["effect"] for entry in found.history] == ["look"]
    assert found.history[0]["parameters"]["style"] == "cartoon ä"


def test_a_copy_is_the_file(frame: PlateFrame, tmp_path: Path) -> None:
    result = copy_plate(frame.path, str(tmp_path / "out" / "b.1001.exr"), frame=1001)
    assert Path(result.path).read_bytes() == Path(frame.path).read_bytes()
    assert can_copy("a.exr", "b.EXR")
    assert not can_copy("a.exr", "b.exr", "piz")
    assert not can_copy("a.png", "b.exr")
    with pytest.raises(PlateError) as caught:
        copy_plate(frame.path, str(tmp_path / "b.png"))
    assert caught.value.code == "plate.format"
    with pytest.raises(PlateError) as caught:
        copy_plate(str(tmp_path / "none.exr"), str(tmp_path / "b.exr"), frame=3)
    assert (caught.value.code, caught.value.frame) == ("plate.missing_frame", 3)
    assert "b.exr" not in _everything(tmp_path)


def test_an_output_that_is_the_input_is_refused(frame: PlateFrame, tmp_path: Path) -> None:
    os.link(frame.path, tmp_path / "hard.exr")
    (tmp_path / "soft.exr").symlink_to(frame.path)
    before = Path(frame.path).read_bytes()
    relative = os.path.relpath(frame.path)
    for target in (frame.path, relative, str(tmp_path / "hard.exr"), str(tmp_path / "soft.exr")):
        attempts: tuple[Callable[[str], Any], ...] = (
            lambda path: write_plate(frame, path),
            lambda path: copy_plate(frame.path, path),
        )
        for attempt in attempts:
            with pytest.raises(JobError) as caught:
                attempt(target)
            assert caught.value.code == "job.output_is_input"
    assert Path(frame.path).read_bytes() == before


def test_mattes_are_added_as_half_channels_or_written_alone(frame: PlateFrame, tmp_path: Path) -> None:
    layer = choose(frame)
    matte = np.linspace(0, 1, 24 * 40, dtype=np.float32).reshape(24, 40)
    mattes = {"face": matte, "lips": matte * 0}
    out = write_plate(with_mattes(frame, layer, mattes), str(tmp_path / "m.exr")).path
    again = read_plate(out)
    assert same_bits(again.parts[0].channels["faceplate.face"], matte.astype(np.float16))
    assert set(again.parts[0].channels) == {*"RGBA", "faceplate.face", "faceplate.lips"}
    assert set(again.parts[1].channels) == {"id"}
    alone = read_plate(write_plate(matte_frame(frame, layer, mattes), str(tmp_path / "n.exr")).path)
    assert set(alone.parts[0].channels) == {"A", "faceplate.face", "faceplate.lips"}
    assert same_bits(alone.parts[0].channels["A"], matte.astype(np.float16))
    assert alone.parts[0].header["timeCode"] == frame.parts[0].header["timeCode"]


def test_the_hidden_file_fits_no_pattern_and_is_gone_afterwards(frame: PlateFrame, tmp_path: Path) -> None:
    seen = []

    def may_write() -> bool:
        seen.extend(os.listdir(tmp_path / "out"))
        return True

    write_plate(frame, str(tmp_path / "out" / "a.1001.exr"), may_write=may_write)
    assert len(seen) == 1
    assert seen[0].startswith(".")
    for text in ("a.%04d.exr", "%d", ".####", "@@@@.tmp", "a.$F4.exr", ".faceplate-%d.tmp"):
        assert parse_pattern(text).frame_of(seen[0]) is None
    assert _everything(tmp_path / "out") == ["a.1001.exr"]


@pytest.mark.parametrize("problem", [KeyboardInterrupt, GeneratorExit, SystemExit, ValueError])
def test_whatever_interrupts_leaves_nothing(tmp_path: Path, problem: type[BaseException]) -> None:
    (tmp_path / "a.exr").write_bytes(b"old")

    def interrupted() -> None:
        with replacing(str(tmp_path / "a.exr")) as pending:
            pending.write(b"half")
            raise problem

    with pytest.raises(problem):
        interrupted()
    assert _everything(tmp_path) == ["a.exr"]
    assert (tmp_path / "a.exr").read_bytes() == b"old"


def test_closing_a_generator_in_mid_write_leaves_nothing(tmp_path: Path) -> None:
    def run() -> Iterator[int]:
        with replacing(str(tmp_path / "a.exr")) as pending:
            pending.write(b"half")
            yield 1
            pending.write(b"never")

    going = run()
    next(going)
    assert len(_everything(tmp_path)) == 1
    going.close()  # type: ignore[attr-defined]
    assert _everything(tmp_path) == []


def test_a_lost_lease_writes_nothing(frame: PlateFrame, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for write in (write_plate, lambda f, path, **k: copy_plate(f.path, path, frame=f.frame, **k)):
        with pytest.raises(JobError) as caught:
            write(frame, str(tmp_path / "out" / "a.exr"), may_write=lambda: False)
        assert (caught.value.code, caught.value.frame) == ("job.lease_lost", 1001)
    assert _everything(tmp_path / "out") == []


def test_a_file_that_a_viewer_holds_is_tried_again(
    frame: PlateFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls, asked = os.replace, [], []

    def blocked(source: str, target: str) -> None:
        calls.append(target)
        if len(calls) < 3:
            raise PermissionError(errno.EACCES, "in use")
        real(source, target)

    def may_write() -> bool:
        asked.append(1)
        return True

    monkeypatch.setattr(os, "replace", blocked)
    write_plate(frame, str(tmp_path / "b.exr"), may_write=may_write)
    assert (len(calls), len(asked)) == (3, 3)
    assert read_plate(str(tmp_path / "b.exr")).parts
    monkeypatch.setattr(atomic, "_RETRY_SECONDS", (0.001, 0.001))
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EACCES, "in use")))
    with pytest.raises(PlateError) as caught:
        write_plate(frame, str(tmp_path / "c.exr"))
    assert caught.value.code == "plate.permission"
    assert _everything(tmp_path) == ["b.exr", "in", "in/a.1001.exr"]


def test_umask_and_group_are_honoured(frame: PlateFrame, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    group = 12345 if os.geteuid() == 0 else os.getegid()
    os.chown(shared, -1, group)
    shared.chmod(0o2775)
    for mask, mode in ((0o002, 0o664), (0o027, 0o640)):
        before = os.umask(mask)
        try:
            path = write_plate(frame, str(shared / f"{mask}.exr")).path
        finally:
            os.umask(before)
        status = os.stat(path)
        assert status.st_mode & 0o777 == mode
        assert status.st_gid == group


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_read_only_folder_is_a_permission_error(frame: PlateFrame, shared_folder: Path) -> None:
    closed = shared_folder / "closed"
    closed.mkdir()
    closed.chmod(0o555)
    data = read_bytes(frame.path)

    def attempt() -> str:
        source = shared_folder / "a.1001.exr"
        source.write_bytes(data)
        codes = []
        for target in (closed / "b.exr", closed / "new" / "b.exr"):
            try:
                write_plate(read_plate(str(source), 1001), str(target))
            except FaceplateError as error:
                codes.append(f"{error.code} {error.frame} {error.path == str(target)}")
        source.chmod(0o000)
        try:
            read_plate(str(source), 1001)
        except FaceplateError as error:
            codes.append(error.code)
        return "; ".join(codes)

    expected = "plate.permission 1001 True; plate.permission 1001 True; plate.permission"
    assert outcome_without_privileges(attempt) == expected
    assert _everything(closed) == []
    closed.chmod(0o755)


def test_a_limit_on_file_size_is_an_error_and_leaves_nothing(frame: PlateFrame, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(PlateError) as caught:
            write_plate(frame, str(tmp_path / "out" / "a.exr"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (caught.value.code, caught.value.value) == ("plate.write_failed", errno.EFBIG)
    assert _everything(tmp_path / "out") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    made = subprocess.run(
        [mount, "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_leaves_nothing(small_disk: Path, tmp_path: Path) -> None:
    source = write_plate_file(tmp_path / "big.exr", height=200, width=200)
    writes: tuple[Callable[[str], Any], ...] = (
        lambda path: write_plate(read_plate(source, 9), path),
        lambda path: copy_plate(source, path, frame=9),
    )
    for write in writes:
        with pytest.raises(PlateError) as caught:
            write(str(small_disk / "a.0009.exr"))
        assert (caught.value.code, caught.value.frame) == ("plate.disk_full", 9)
        assert _everything(small_disk) == []


def test_a_disk_that_changes_what_is_written_is_noticed(
    frame: PlateFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = atomic.Pending.read_back

    def changed(pending: atomic.Pending) -> bytearray:
        return bytearray(b"x") + real(pending)[1:]

    monkeypatch.setattr(atomic.Pending, "read_back", changed)
    (tmp_path / "out").mkdir()
    with pytest.raises(PlateError, match="reads back differently") as caught:
        write_plate(frame, str(tmp_path / "out" / "a.exr"))
    assert caught.value.code == "plate.write_failed"
    assert _everything(tmp_path / "out") == []


_DYING = """
import sys, time
from inference_server.plates.atomic import replacing
with replacing(sys.argv[1] + "/a.0001.exr") as pending:
    pending.write(b"half a frame")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_leftovers_of_the_dead_are_cleaned_and_of_the_living_kept(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _DYING, str(tmp_path)], stdout=subprocess.PIPE, cwd=os.getcwd())
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    assert clean_leftovers(str(tmp_path)) == ()
    assert len(_everything(tmp_path)) == 1
    child.kill()
    child.wait()
    child.stdout.close()
    foreign = tmp_path / ".faceplate-elsewhere-0123456789abcdef.tmp"
    foreign.write_bytes(b"")
    keep = tmp_path / ".faceplate-notes.tmp"
    keep.write_bytes(b"")
    assert len(clean_leftovers(str(tmp_path))) == 1
    assert _everything(tmp_path) == [foreign.name, keep.name]
    os.utime(foreign, (time.time() - 90000,) * 2)
    assert clean_leftovers(str(tmp_path)) == (str(foreign),)
    assert clean_leftovers(str(tmp_path / "none")) == ()


def test_a_finished_frame_is_known_by_its_job_and_by_decoding(frame: PlateFrame, tmp_path: Path) -> None:
    path = write_plate(frame, str(tmp_path / "a.exr"), extra_attributes=MADE.attributes()).path
    assert is_finished(path, MADE.job)
    assert not is_finished(path, "another")
    assert not is_finished(str(tmp_path / "none.exr"), MADE.job)
    copied = copy_plate(frame.path, str(tmp_path / "c.exr")).path
    assert not is_finished(copied, MADE.job)
    assert is_finished(copied, MADE.job, frame.path)
    Path(path).write_bytes(Path(path).read_bytes()[:-10])
    assert not is_finished(path, MADE.job)


def test_files_that_are_no_plates_are_clear_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.exr").write_bytes(b"")
    (tmp_path / "text.exr").write_bytes(b"hello, this is text and not a picture")
    (tmp_path / "text.png").write_bytes(b"hello, this is text and not a picture")
    (tmp_path / "movie.mov").write_bytes(b"x")
    (tmp_path / "folder.exr").mkdir()
    expected = {
        "empty.exr": "plate.empty_file",
        "text.exr": "plate.unreadable",
        "text.png": "plate.unreadable",
        "movie.mov": "plate.format",
        "folder.exr": "plate.unreadable",
        "none.exr": "plate.missing_frame",
    }
    for name, code in expected.items():
        with pytest.raises(PlateError) as caught:
            read_plate(str(tmp_path / name), 12)
        error = caught.value
        assert (error.code, error.frame, error.path) == (code, 12, str(tmp_path / name))
        assert error.remedy


def _picture(path: Path, dtype: str, channels: int = 4, **attributes: Any) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(5)
    if dtype == "uint10":
        values = rng.integers(0, 1024, (9, 7, channels), np.uint16)
        values = (values << 6 | values >> 4).astype(np.uint16)
    elif dtype.startswith("uint"):
        values = rng.integers(0, np.iinfo(dtype).max + 1, (9, 7, channels)).astype(dtype)
    else:
        values = rng.normal(0, 2, (9, 7, channels)).astype(np.float32)
    spec = oiio.ImageSpec(7, 9, channels, "uint16" if dtype == "uint10" else dtype)
    if dtype == "uint10":
        spec.attribute("oiio:BitsPerSample", 10)
        spec.attribute("smpte:TimeCode", oiio.TypeDesc("timecode"), (0x01020304, 0))
    spec.attribute("oiio:UnassociatedAlpha", 1)
    spec.attribute("DateTime", "2020:01:02 03:04:05")
    for name, value in attributes.items():
        spec.attribute(name, value)
    output = oiio.ImageOutput.create(str(path))
    assert output.open(str(path), spec)
    assert output.write_image(values)
    output.close()
    return values


def _stored(path: str) -> np.ndarray[Any, Any]:
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    source = oiio.ImageInput.open(path, config)
    values = source.read_image(0, 0, 0, source.spec().nchannels, source.spec().format)
    source.close()
    return np.asarray(values)


@pytest.mark.parametrize(
    ("name", "dtype", "channels"),
    [
        ("a.png", "uint8", 4),
        ("a.png", "uint16", 3),
        ("a.png", "uint8", 1),
        ("a.tif", "uint8", 3),
        ("a.tiff", "uint16", 4),
        ("a.tif", "float", 4),
        ("a.dpx", "uint10", 3),
        ("a.dpx", "uint8", 3),
        ("a.dpx", "uint16", 3),
    ],
)
def test_other_formats_are_read_exactly_and_written_back_exactly(
    tmp_path: Path, name: str, dtype: str, channels: int
) -> None:
    values = _picture(tmp_path / name, dtype, channels, ImageDescription="a note")
    frame = read_plate(str(tmp_path / name), 1001)
    part = frame.parts[0]
    assert all(samples.dtype == np.float32 for samples in part.channels.values())
    assert decode(part.header["faceplate:sourceFormat"]).endswith(dtype)
    full = {"uint8": 255, "uint16": 65535, "uint10": 65535}.get(dtype, 1)
    picture = np.stack(list(part.channels.values()), -1)
    assert same_bits(picture, values.astype(np.float32) / np.float32(full))
    back = write_plate(frame, str(tmp_path / "out" / name), extra_attributes=MADE.attributes())
    assert (_stored(back.path) == values).all()
    if name.endswith("dpx"):
        assert [w.code for w in back.warnings] == ["plate.provenance"]
        assert read_provenance(back.path) is None
    else:
        assert back.warnings == ()
        assert read_provenance(back.path) == MADE
    again = write_plate(frame, str(tmp_path / "again" / name), extra_attributes=MADE.attributes())
    assert Path(again.path).read_bytes() == Path(back.path).read_bytes()
    as_exr = write_plate(frame, str(tmp_path / "out" / "a.exr"))
    stored = independent_read(as_exr.path)[0]
    assert all(same_bits(stored[n], s) for n, s in part.channels.items())


def test_a_ten_bit_dpx_keeps_its_timecode_into_exr(tmp_path: Path) -> None:
    _picture(tmp_path / "a.dpx", "uint10", 3)
    frame = read_plate(str(tmp_path / "a.dpx"), 1)
    header = read_plate(write_plate(frame, str(tmp_path / "a.exr")).path).parts[0].header
    assert header["timeCode"] == encode("timecode", (0x01020304, 0))
    assert decode(header["faceplate:sourceFormat"]) == "dpx uint10"


def test_what_a_display_format_cannot_hold_is_said(tmp_path: Path) -> None:
    _picture(tmp_path / "a.png", "uint8", 3)
    frame = read_plate(str(tmp_path / "a.png"), 1)
    layer = choose(frame)
    for target, plate in (
        ("b.tif", frame),
        ("b.png", with_mattes(frame, layer, {"face": np.zeros((9, 7), np.float32)})),
    ):
        with pytest.raises(PlateError) as caught:
            write_plate(plate, str(tmp_path / target))
        assert caught.value.code == "plate.format"
    exr = read_plate(write_plate(frame, str(tmp_path / "a.exr")).path)
    with pytest.raises(PlateError, match=r"the plate is exr, the output png"):
        write_plate(exr, str(tmp_path / "c.png"))
    part = frame.parts[0]
    bright = {n: s * np.float32(2) for n, s in part.channels.items()}
    result = write_plate(replace(frame, parts=(replace(part, channels=bright),)), str(tmp_path / "d.png"))
    assert [w.code for w in result.warnings] == ["plate.clipped"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.exr", "a.png", "d.png"]


def test_a_jpeg_is_read_and_copied_but_not_written_again(tmp_path: Path) -> None:
    spec = oiio.ImageSpec(64, 48, 3, "uint8")
    output = oiio.ImageOutput.create(str(tmp_path / "a.jpg"))
    output.open(str(tmp_path / "a.jpg"), spec)
    output.write_image(np.full((48, 64, 3), 128, np.uint8))
    output.close()
    frame = read_plate(str(tmp_path / "a.jpg"), 1)
    assert abs(float(frame.parts[0].channels["R"].mean()) * 255 - 128) < 2
    assert copy_plate(str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")).size > 0
    with pytest.raises(PlateError, match="loses something") as caught:
        write_plate(frame, str(tmp_path / "c.jpg"))
    assert caught.value.code == "plate.format"
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "d.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(PlateError):
        read_plate(str(tmp_path / "d.jpg"), 1)


@pytest.mark.parametrize(("name", "dtype"), [("a.png", "uint8"), ("a.tif", "uint16"), ("a.dpx", "uint10")])
def test_a_cut_picture_is_an_error(tmp_path: Path, name: str, dtype: str) -> None:
    _picture(tmp_path / name, dtype, 3)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(PlateError) as caught:
        read_plate(str(path), 4)
    assert caught.value.code in ("plate.truncated", "plate.unreadable")
    assert caught.value.frame == 4
