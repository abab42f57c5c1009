"""EXR in and out: samples and attributes to the bit, and every way a file can be broken."""

from __future__ import annotations

import contextlib
import struct
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_bridge.errors import PlateError
from inference_server.plates import exr, exrheader
from inference_server.plates.attributes import Timecode, decode, encode
from inference_server.plates.exr import encode_exr
from inference_server.plates.reader import read_plate
from inference_server.plates.types import Attribute, Part, PlateFrame, Window
from inference_server.plates.writer import write_plate
from tests.plate_files import (
    PartSpec,
    independent_read,
    odd_attributes,
    rgba,
    same_bits,
    samples,
    timecode,
    write_deep,
    write_exr,
    write_plate_file,
    write_ripmap,
)


def _multi_part(folder: Path, attributes: dict[str, Attribute] | None = None) -> str:
    display = Window(0, 0, 32, 16)
    attributes = odd_attributes() if attributes is None else attributes
    shared = {k: v for k, v in attributes.items() if k in ("timeCode", "chromaticities")}
    return write_exr(
        folder / "multi.1001.exr",
        PartSpec(rgba(), "beauty", Window(-5, -7, 35, 17), display, aspect=2.0, attributes=attributes),
        PartSpec(
            {"id": samples("uint", 9, 13), "Z": samples("float", 9, 13), "mask.a": samples("half", 9, 13)},
            "ids",
            Window(3, 2, 16, 11),
            display,
            compression="piz",
            tile=(8, 4),
            aspect=2.0,
            attributes=shared,
        ),
        PartSpec(
            {"crypto00.R": samples("float", 4, 4)},
            "cryptö",
            Window(-9, 20, -5, 24),
            display,
            aspect=2.0,
            compression="none",
        ),
    )


def test_every_sample_of_every_part_is_read_and_written_to_the_bit(tmp_path: Path) -> None:
    source = _multi_part(tmp_path, {"timeCode": timecode("01:00:00:00")})
    frame = read_plate(source, 1001)
    truth = independent_read(source)
    assert [p.name for p in frame.parts] == ["beauty", "ids", "cryptö"]
    assert frame.parts[1].channels["id"].dtype == np.uint32
    written = write_plate(frame, str(tmp_path / "out.exr"))
    assert written.warnings == ()
    for part, before, after in zip(frame.parts, truth, independent_read(written.path), strict=True):
        assert list(part.channels) == sorted(before) == sorted(after)
        for name in before:
            assert same_bits(part.channels[name], before[name]), name
            assert same_bits(after[name], before[name]), name


def test_windows_aspect_and_every_attribute_come_back_as_bytes(tmp_path: Path) -> None:
    source = _multi_part(tmp_path)
    frame = read_plate(source, 1001)
    assert frame.parts[0].data_window == Window(-5, -7, 35, 17)
    assert frame.parts[2].data_window == Window(-9, 20, -5, 24)
    assert frame.parts[0].display_window == Window(0, 0, 32, 16)
    assert frame.parts[0].pixel_aspect == 2.0
    again = read_plate(write_plate(frame, str(tmp_path / "out.exr")).path, 1001)
    for before, after in zip(frame.parts, again.parts, strict=True):
        assert (before.data_window, before.display_window, before.pixel_aspect) == (
            after.data_window,
            after.display_window,
            after.pixel_aspect,
        )
        assert dict(before.header) == dict(after.header)
    for name, attribute in odd_attributes().items():
        assert again.parts[0].header[name] == attribute, name


def test_a_single_part_file_gains_nothing_but_its_type(tmp_path: Path) -> None:
    source = write_plate_file(tmp_path / "a.exr")
    out = write_plate(read_plate(source, 1001), str(tmp_path / "b.exr")).path
    assert Path(out).read_bytes() == Path(source).read_bytes()


@pytest.mark.parametrize("codec", ["none", "rle", "zips", "zip", "piz", "htj2k256", "htj2k32", "zstd"])
def test_lossless_compressions_are_kept(tmp_path: Path, codec: str) -> None:
    channels = {**rgba(40, 50), "id": samples("uint", 40, 50), "Z": samples("float", 40, 50)}
    frame = read_plate(write_exr(tmp_path / "a.exr", PartSpec(channels, compression=codec)), 1)
    result = write_plate(frame, str(tmp_path / "b.exr"))
    assert result.warnings == ()
    again = read_plate(result.path, 1)
    assert again.parts[0].header["compression"] == frame.parts[0].header["compression"]
    assert all(same_bits(again.parts[0].channels[n], channels[n]) for n in channels)


@pytest.mark.parametrize(
    ("codec", "kind", "kept"),
    [
        ("pxr24", "half", True),
        ("pxr24", "uint", True),
        ("pxr24", "float", False),
        ("b44", "half", False),
        ("b44a", "half", False),
        ("dwaa", "half", False),
        ("dwab", "float", False),
    ],
)
def test_lossy_compressions_become_zip_with_a_warning_unless_kept(
    tmp_path: Path, codec: str, kind: str, kept: bool
) -> None:
    frame = read_plate(write_exr(tmp_path / "a.exr", PartSpec({"R": samples(kind, 40, 50)}, compression=codec)), 1)
    result = write_plate(frame, str(tmp_path / "b.exr"))
    again = read_plate(result.path, 1)
    assert same_bits(again.parts[0].channels["R"], frame.parts[0].channels["R"])
    stored = exrheader.COMPRESSIONS[decode(again.parts[0].header["compression"])]
    assert stored == (codec if kept else "zip")
    assert [w.code for w in result.warnings] == ([] if kept else ["plate.compression"])
    asked = write_plate(frame, str(tmp_path / "c.exr"), compression="keep")
    assert exrheader.COMPRESSIONS[decode(read_plate(asked.path).parts[0].header["compression"])] == codec
    assert [w.code for w in asked.warnings] == ([] if kept else ["plate.lossy"])


def test_a_compression_asked_for_by_name_is_used_and_a_wrong_name_refused(tmp_path: Path) -> None:
    frame = read_plate(write_plate_file(tmp_path / "a.exr"), 1)
    result = write_plate(frame, str(tmp_path / "b.exr"), compression="piz")
    assert decode(read_plate(result.path).parts[0].header["compression"]) == exrheader.COMPRESSIONS.index("piz")
    with pytest.raises(PlateError, match=r"Did you mean 'dwa[ab]'") as caught:
        write_plate(frame, str(tmp_path / "c.exr"), compression="dwa")
    assert caught.value.code == "plate.format"
    assert not (tmp_path / "c.exr").exists()


def test_the_dwa_level_of_a_kept_codec_is_kept(tmp_path: Path) -> None:
    spec = PartSpec({"R": samples("half", 64, 64, specials=False)}, compression="dwaa")
    frame = read_plate(write_exr(tmp_path / "a.exr", spec), 1)
    sizes = []
    for level in (10.0, 400.0):
        part = frame.parts[0]
        header = {**part.header, "dwaCompressionLevel": encode("float", level)}
        changed = PlateFrame(1, "", (type(part)(**{**part.__dict__, "header": header}),))
        result = write_plate(changed, str(tmp_path / f"{level}.exr"), compression="keep")
        sizes.append(result.size)
        assert decode(read_plate(result.path).parts[0].header["dwaCompressionLevel"]) == level
    assert sizes[1] < sizes[0]


def test_tiles_and_line_order_are_kept(tmp_path: Path) -> None:
    tiled = read_plate(write_exr(tmp_path / "t.exr", PartSpec(rgba(33, 47), tile=(16, 8))), 1)
    down = read_plate(write_exr(tmp_path / "d.exr", PartSpec(rgba(33, 47), decreasing=True)), 1)
    for index, frame in enumerate((tiled, down)):
        out = write_plate(frame, str(tmp_path / f"o{index}.exr")).path
        assert Path(out).read_bytes() == Path(frame.path).read_bytes()


@pytest.mark.parametrize("mode", [1, 2])
@pytest.mark.parametrize("size", [5, 37])
def test_of_a_mipmapped_or_ripmapped_part_the_full_level_is_read_and_written(
    tmp_path: Path, mode: int, size: int
) -> None:
    path, full = write_ripmap(tmp_path / "m.exr", size=size, mode=mode)
    frame = read_plate(path, 1)
    assert same_bits(frame.parts[0].channels["Y"], full)
    result = write_plate(frame, str(tmp_path / "o.exr"))
    assert [w.code for w in result.warnings] == ["plate.mip_levels"]
    again = read_plate(result.path)
    assert same_bits(again.parts[0].channels["Y"], full)
    assert decode(again.parts[0].header["tiles"]) == (4, 4, 0)
    Path(path).write_bytes(Path(path).read_bytes()[:-3])
    with pytest.raises(PlateError) as caught:
        read_plate(path, 3)
    assert caught.value.code == "plate.truncated"


def test_the_same_frame_gives_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    channels = {**rgba(200, 64), "id": samples("uint", 200, 64)}
    plain = read_plate(write_exr(tmp_path / "a.exr", PartSpec(channels)), 1)
    tiled = read_plate(write_exr(tmp_path / "b.exr", PartSpec(channels, tile=(16, 16))), 1)
    try:
        encoded = []
        for threads in (0, 0, 3):
            exr.use_codec_threads(threads)
            encoded.append([bytes(encode_exr(f).data) for f in (plain, tiled)])
    finally:
        exr.use_codec_threads(0)
    assert encoded[0] == encoded[1] == encoded[2]


def test_python_runs_while_a_frame_is_decoded_and_encoded(tmp_path: Path) -> None:
    path = write_exr(tmp_path / "a.exr", PartSpec(rgba(900, 1600), compression="zip"))
    frame = read_plate(path, 1)
    for work in (lambda: read_plate(path, 1), lambda: encode_exr(frame)):
        ticks: list[float] = []
        stop = threading.Event()

        def count(ticks: list[float] = ticks, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                ticks.append(time.perf_counter())
                time.sleep(0.0005)

        thread = threading.Thread(target=count)
        thread.start()
        begin = time.perf_counter()
        work()
        end = time.perf_counter()
        stop.set()
        thread.join()
        during = [t for t in ticks if begin < t < end]
        assert len(during) >= 3, "a thread must run during the codec's work"


def test_deep_and_subsampled_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PlateError) as caught:
        read_plate(write_deep(tmp_path / "deep.exr"), 7)
    assert (caught.value.code, caught.value.frame) == ("plate.deep", 7)
    path = write_exr(tmp_path / "yc.exr", PartSpec({"Y": samples("half", 8, 8)}))
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"Y\0" + struct.pack("<i", 1))
    data[at + 2 + 8 : at + 2 + 16] = struct.pack("<2i", 2, 2)
    Path(path).write_bytes(data)
    with pytest.raises(PlateError) as caught:
        read_plate(path, 7)
    assert caught.value.code == "plate.subsampled"


def test_a_file_cut_anywhere_is_an_error_with_frame_and_path(tmp_path: Path) -> None:
    source = Path(_multi_part(tmp_path))
    whole = source.read_bytes()
    cut = tmp_path / "cut.1002.exr"
    codes = set()
    for size in [*range(1, len(whole), 97), len(whole) - 1]:
        cut.write_bytes(whole[:size])
        with pytest.raises(PlateError) as caught:
            read_plate(str(cut), 1002)
        assert (caught.value.frame, caught.value.path) == (1002, str(cut))
        assert caught.value.remedy
        codes.add(caught.value.code)
    assert codes == {"plate.truncated"}


def test_an_unfinished_render_is_truncated(tmp_path: Path) -> None:
    path = Path(write_plate_file(tmp_path / "a.exr", height=64))
    data = bytearray(path.read_bytes())
    from inference_server.plates.exrheader import parse_header

    end = parse_header(data).end
    data[end + 8 : end + 32] = bytes(24)
    path.write_bytes(data)
    with pytest.raises(PlateError, match="3 of 4 blocks are missing") as caught:
        read_plate(str(path), 1)
    assert caught.value.code == "plate.truncated"


def test_damaged_pixels_are_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(write_plate_file(tmp_path / "a.exr", height=64))
    data = bytearray(path.read_bytes())
    data[-200:] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(PlateError) as caught:
        read_plate(str(path), 5)
    assert (caught.value.code, caught.value.frame) == ("plate.unreadable", 5)
    capsys.readouterr()  # the binding prints a line of its own


@given(st.binary(max_size=300), st.integers(0, 700))
def test_hostile_headers_are_errors_never_crashes(junk: bytes, at: int) -> None:
    base = bytearray(_HOSTILE_BASE)
    base[at : at + len(junk)] = junk
    with contextlib.suppress(PlateError):  # anything else is a crash
        exr.read_exr_header(base)


_HOSTILE_BASE = encode_exr(
    PlateFrame(
        1,
        "",
        (
            Part(
                "",
                {"R": np.zeros((4, 4), np.float16)},
                Window(0, 0, 4, 4),
                Window(0, 0, 4, 4),
                1.0,
            ),
        ),
    )
).data


def test_an_enormous_data_window_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = Path(write_plate_file(tmp_path / "a.exr"))
    data = path.read_bytes()
    box = struct.pack("<4i", 0, 0, 39, 23)
    path.write_bytes(data.replace(box, struct.pack("<4i", 0, 0, 2**30, 2**30)))
    with pytest.raises(PlateError, match="too large"):
        read_plate(str(path), 1)


def test_a_part_that_does_not_fit_exr_is_refused(tmp_path: Path) -> None:
    frame = read_plate(write_plate_file(tmp_path / "a.exr"), 1)
    part = frame.parts[0]

    def changed(**fields: object) -> PlateFrame:
        return PlateFrame(1, "", (type(part)(**{**part.__dict__, **fields}),))

    double = {**part.channels, "d": np.zeros((24, 40))}
    small = {**part.channels, "s": np.zeros((3, 3), np.float16)}
    for wrong in (changed(channels=double), changed(channels=small)):
        with pytest.raises(PlateError) as caught:
            encode_exr(wrong)
        assert caught.value.code == "plate.format"
    with pytest.raises(PlateError, match="different names"):
        encode_exr(PlateFrame(1, "", (part.__class__(**{**part.__dict__, "name": "x"}),) * 2))


@pytest.mark.parametrize(
    ("before", "by", "fps", "after"),
    [
        ("01:02:03:04", 1, Fraction(24), "01:02:03:05"),
        ("01:02:03:23", 1, Fraction(24000, 1001), "01:02:04:00"),
        ("23:59:59:24", 1, Fraction(25), "00:00:00:00"),
        ("00:00:00:00", -1, Fraction(25), "23:59:59:24"),
        ("00:00:59;29", 1, Fraction(30000, 1001), "00:01:00;02"),
        ("00:09:59;29", 1, Fraction(30000, 1001), "00:10:00;00"),
        ("00:01:00;02", -1, Fraction(30000, 1001), "00:00:59;29"),
        ("01:00:00;00", 107892 // 6, Fraction(30000, 1001), "01:10:00;02"),
        ("00:00:00:23", 4, Fraction(48), "00:00:01:01"),
    ],
)
def test_timecodes_move_by_frames(before: str, by: int, fps: Fraction, after: str) -> None:
    code = Timecode.unpack(timecode(before, user=77))
    if before == "01:00:00;00":  # 17982 frames are exactly ten minutes of drop-frame time
        assert str(code.advanced(17982, fps)) == "01:10:00;00"
        return
    assert str(code) == before
    moved = code.advanced(by, fps)
    assert str(moved) == after
    assert moved.user == 77
    assert Timecode.unpack(moved.pack()) == moved
    assert str(moved.advanced(-by, fps)) == before


@given(st.integers(0, 2589407), st.integers(-10000, 10000))
def test_drop_frame_time_never_shows_a_dropped_number(start: int, by: int) -> None:
    rate = Fraction(30000, 1001)
    code = Timecode(0, 0, 0, 0, drop=True).advanced(start, rate).advanced(by, rate)
    assert not (code.frame < 2 and code.seconds == 0 and code.minutes % 10)
    assert code == Timecode(0, 0, 0, 0, drop=True).advanced(start + by, rate)
