"""Preparing pictures: faces laid into the FFHQ square, and every file accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.data import astronaut

from host_bridge.cli import main
from host_bridge.errors import FaceError, PlateError
from inference_server.collections.prepare import Prepared, prepare_pictures
from inference_server.faces.align import landmarks68
from inference_server.faces.analyse import FaceTools, faces_of_picture
from inference_server.faces.detect import MediaPipeDetector
from inference_server.faces.landmarks import MediaPipeLandmarker

SIZE = 128


@pytest.fixture(scope="module")
def tools() -> FaceTools:
    return FaceTools(MediaPipeDetector(), MediaPipeLandmarker(), None)


def save(path: Path, rgb: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[:, :, ::-1] if rgb.shape[2] == 3 else rgb[:, :, [2, 1, 0, 3]])


def portrait(shift: int = 0) -> NDArray[np.uint8]:
    return np.ascontiguousarray(astronaut()[0:300, 60 + shift : 360 + shift])


def prepared(source: Path, out: Path, tools: FaceTools, size: int = SIZE, **more: bool) -> dict[str, Prepared]:
    return {p.source: p for p in prepare_pictures(source, out, size, tools=tools, **more)}


def test_every_file_is_accounted_for(tmp_path: Path, tools: FaceTools) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    save(source / "a.png", portrait())
    save(source / "a.jpg", portrait(20))  # the same stem
    save(source / "two.png", np.concatenate([portrait(), cv2.resize(portrait(), (150, 300))[:, 10:]], axis=1))
    save(source / "wall.png", np.full((200, 200, 3), 120, np.uint8))
    (source / "notes.txt").write_text("no picture")
    (source / "empty.png").write_bytes(b"")
    (source / ".hidden").write_text("")
    found = prepared(source, out, tools)
    assert set(found) == {"a.jpg", "a.png", "empty.png", "notes.txt", "two.png", "wall.png"}
    assert {name for name, p in found.items() if p.used} == {"a.jpg", "two.png"}
    assert "a.png is made of a.jpg already" in found["a.png"].note
    assert "cannot be read" in found["notes.txt"].note
    assert "cannot be read" in found["empty.png"].note
    assert "no face was found" in found["wall.png"].note
    assert (found["a.jpg"].faces, found["two.png"].faces) == (1, 2)
    assert "2 faces, the largest is taken" in found["two.png"].note
    assert sorted(p.name for p in out.iterdir()) == ["a.png", "prepared.json", "two.png"]
    report = json.loads((out / "prepared.json").read_text())
    assert [p["source"] for p in report["pictures"]] == sorted(found)


def test_the_face_lies_where_generators_expect_it(tmp_path: Path, tools: FaceTools) -> None:
    """In the FFHQ square, eyes lie at 0.37 and 0.63 of the width, 0.46 of the height, and the mouth below, centred."""
    save(tmp_path / "in" / "face.png", portrait())
    prepared(tmp_path / "in", tmp_path / "out", tools, size=256)
    aligned = cv2.imread(str(tmp_path / "out" / "face.png"))[:, :, ::-1]
    assert aligned.shape == (256, 256, 3)
    (face,) = faces_of_picture(np.ascontiguousarray(aligned), tools)
    points = landmarks68(face.square()) / 256
    left, right, mouth = points[36:42].mean(0), points[42:48].mean(0), points[[48, 54]].mean(0)
    np.testing.assert_allclose(left, [0.37, 0.46], atol=0.04)
    np.testing.assert_allclose(right, [0.63, 0.46], atol=0.04)
    np.testing.assert_allclose(mouth, [0.5, 0.74], atol=0.06)


def test_small_faces_are_said_to_be_soft(tmp_path: Path, tools: FaceTools) -> None:
    save(tmp_path / "in" / "face.png", portrait())
    found = prepared(tmp_path / "in", tmp_path / "out", tools, size=1024)
    assert "soft at 1024" in found["face.png"].note


def test_aligned_pictures_are_only_scaled(tmp_path: Path, tools: FaceTools) -> None:
    source, out = tmp_path / "by hand", tmp_path / "out"
    save(tmp_path / "in" / "face.png", portrait())
    prepared(tmp_path / "in", out, tools)
    drawing = np.zeros((256, 256, 3), np.uint8)
    drawing[:, 128:] = (255, 0, 0)
    save(source / "drawing.png", drawing)
    save(source / "face.png", drawing)  # another folder's name
    save(source / "wide.png", drawing[:200])
    clear = np.zeros((200, 200, 4), np.uint8)
    clear[50:150, 50:150] = (0, 0, 255, 255)
    save(source / "cut out.png", clear)
    found = prepared(source, out, tools, aligned=True)
    assert {name for name, p in found.items() if p.used} == {"drawing.png", "cut out.png"}
    assert "256x200" in found["wide.png"].note
    assert "is made of" in found["face.png"].note
    small = cv2.imread(str(out / "drawing.png"))[:, :, ::-1]
    np.testing.assert_array_equal(small, cv2.resize(drawing, (SIZE, SIZE), interpolation=cv2.INTER_AREA))
    shown = cv2.imread(str(out / "cut out.png"))[:, :, ::-1]
    assert shown[0, 0].tolist() == [255, 255, 255]
    assert shown[64, 64].tolist() == [0, 0, 255]
    names = [p["source"] for p in json.loads((out / "prepared.json").read_text())["pictures"]]
    assert names == ["face.png", "cut out.png", "drawing.png", "face.png", "wide.png"]


def test_nothing_to_use_is_an_error(tmp_path: Path, tools: FaceTools) -> None:
    with pytest.raises(PlateError, match="is not a folder"):
        prepared(tmp_path / "nowhere", tmp_path / "out", tools)
    (tmp_path / "in").mkdir()
    with pytest.raises(PlateError, match="holds no file"):
        prepared(tmp_path / "in", tmp_path / "out", tools)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    with pytest.raises(FaceError, match="none of the 1 files") as caught:
        prepared(tmp_path / "in", tmp_path / "out", tools)
    assert caught.value.code == "face.none"
    assert (tmp_path / "out" / "prepared.json").exists()


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "in" / "a.png", np.zeros((64, 64, 3), np.uint8))
    save(tmp_path / "in" / "b.png", np.zeros((64, 60, 3), np.uint8))
    command = ["train", "prepare", "--in", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--size", "32"]
    assert main([*command, "--aligned"]) == 4
    said = capsys.readouterr().out
    assert "a.png: a.png\n" in said
    assert "b.png: not used (it is 60x64 px; an aligned picture is square)" in said
    assert "1 of 2 pictures are in" in said
    with pytest.raises(SystemExit):
        main([*command[:-1], "100"])
    assert "100 is not a power of two" in capsys.readouterr().err
    (tmp_path / "in" / "b.png").unlink()
    assert main([*command, "--aligned"]) == 0
