"""`faceplate metrics` on real EXR sequences."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from host_bridge.cli import main
from inference_server.metrics import flow_warp_error, mse, psnr_of_mse, temporal_profile
from inference_server.metrics.learned import Identity, Perceptual
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.arcface import ArcFace
from inference_server.networks.lpips import LPIPS
from inference_server.plates.types import Window
from tests.inference_server.train_commands.tiny_store import put
from tests.plate_files import PartSpec, write_exr
from tests.portrait import COLORSPACE, SIZE, channels, framed, moved

FRAMES = range(1001, 1004)
Run = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelStore:
    monkeypatch.setenv("FACEPLATE_MODELS", str(tmp_path / "models"))
    return ModelStore((Folder(tmp_path / "models", True),))


@pytest.fixture
def measured(capsys: pytest.CaptureFixture[str]) -> Run:
    """The command's JSON."""

    def run(*words: object) -> dict[str, Any]:
        assert main(["metrics", *map(str, words), "--colorspace", COLORSPACE, "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return run


def _encoded(linear: Any) -> Any:
    x = np.clip(np.float32(linear), 0, 1)
    return np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055).astype(np.float32)


def _flicker(frame: int) -> Any:
    """The shot's frame, a little darker in every other one."""
    return moved(frame) * (0.8 if frame % 2 else 1.0)


def _write(folder: Path, frames: Any = FRAMES, picture: Callable[[int], Any] = _flicker) -> str:
    folder.mkdir()
    for frame in frames:
        write_exr(folder / f"b.{frame}.exr", PartSpec(channels(picture(frame), np.float32)))
    return str(folder / "b.%04d.exr")


class _Held(nn.Module):
    """A state dict as a module."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.state = state

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.state


def _put_networks(store: ModelStore) -> None:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"image_size": 16, "embedding": 8, "widths": [16, 16, 16, 16], "depths": [1, 1, 1, 1]}
    put(store, "arcface-irse50", {"main": ("arcface", ArcFace(16, 8, (16, 16, 16, 16), (1, 1, 1, 1)), sizes)})
    config = {"trunk": "vgg", "width_divisor": 16}
    state = LPIPS("vgg", 16).state_dict()
    heads = {k: v for k, v in state.items() if k.startswith("lin") and not k.startswith("lins")}
    trunk = {f"features.{k.split('.', 2)[2]}": v for k, v in state.items() if k.startswith("net.")}
    put(store, "lpips-vgg", {"main": ("lpips-heads", _Held(heads), config)})
    put(store, "torchvision-vgg16", {"main": ("lpips-trunk", _Held(trunk), config)})


def test_everything_at_once_is_what_the_functions_say(tmp_path: Path, own_models: ModelStore, measured: Run) -> None:
    a, b = _write(tmp_path / "a", picture=moved), _write(tmp_path / "b")
    _put_networks(own_models)
    report = measured(a, b, "--out", tmp_path / "report")
    first = np.stack([_encoded(moved(f)) for f in FRAMES])
    second = np.stack([_encoded(_flicker(f)) for f in FRAMES])
    assert (report["frames"], report["size"], report["ms_ssim_scales"]) == (list(FRAMES), [SIZE, SIZE], 5)
    np.testing.assert_allclose(report["per_frame"]["mse"], mse(first, second), rtol=1e-3, atol=1e-9)
    assert report["b_from_a"]["psnr"] == pytest.approx(float(psnr_of_mse(mse(first, second).mean())), abs=0.01)
    assert report["per_frame"]["psnr"][1] is None  # the frame in the middle is the plate's own
    assert report["b_from_a"]["ms_ssim"] < 1
    assert report["warp_error"]["a"] == pytest.approx(flow_warp_error(first).mean, rel=0.02)
    assert report["warp_error"]["b"] == pytest.approx(flow_warp_error(second, first).mean, rel=0.02)
    assert report["warp_error"]["b"] > 3 * report["warp_error"]["a"]

    assert report["faces"] == "found in both"
    assert 0 < report["b_from_a"]["head_drift"] < 1
    assert report["b_from_a"]["gaze_drift"] < 2
    assert report["landmark_jitter"]["a"] > 0
    assert report["lpips"] == "LPIPS (vgg)"
    distances = report["per_frame"]["lpips"]
    assert abs(distances[1]) < 1e-6 < 1e-4 < distances[0]
    assert report["per_frame"]["identity"][1] > 0.9
    assert all(-1.001 <= value <= 1.001 for value in report["per_frame"]["identity"])

    written = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert written == report
    column = report["profile"]["column"]
    assert abs(column - SIZE / 2) < SIZE / 4  # through the face
    sheet = cv2.imread(str(tmp_path / "report" / "profile.png"))[..., ::-1].astype(int)
    line = np.rint(temporal_profile(first, column=column) * 255)
    assert np.abs(sheet[22 : 22 + SIZE, 2] - line[:, 0]).max() <= 1


def test_equal_sequences_are_equal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = _write(tmp_path / "a")
    assert main(["metrics", a, a, "--no-faces", "--colorspace", COLORSPACE]) == 0
    said = capsys.readouterr().out
    rows = {line[:36].strip(): line[36:].split() for line in said.splitlines() if len(line) > 40}
    assert rows["PSNR (dB)"] == ["equal"]
    assert rows["MS-SSIM"] == ["1"]
    assert rows["flow-warp error (x 1e-4)"][-2:] == ["x", "1.00"]
    assert "LPIPS: not imported" in said
    assert "identity" not in said  # it was not asked for


def test_a_matte_of_faceplates_keeps_the_rest_out(tmp_path: Path, measured: Run) -> None:
    def above(frame: int) -> Any:
        return np.where(np.arange(SIZE)[:, None, None] < 80, 0.5 * moved(frame), moved(frame))

    a, b = _write(tmp_path / "a", picture=moved), _write(tmp_path / "b", picture=above)
    low, high = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    low[100:200, 60:160], high[10:70, 60:160] = 1, 1
    for name, matte in (("low", low), ("high", high)):
        (tmp_path / name).mkdir()
        for frame in FRAMES:
            write_exr(tmp_path / name / f"m.{frame}.exr", PartSpec({"faceplate.composite": matte}))
    words = (a, b, "--no-faces", "--matte")
    outside = measured(*words, tmp_path / "low" / "m.%04d.exr")
    assert outside["b_from_a"]["mse"] == 0
    inside, everywhere = measured(*words, tmp_path / "high" / "m.%04d.exr"), measured(a, b, "--no-faces")
    assert inside["b_from_a"]["mse"] > 1.5 * everywhere["b_from_a"]["mse"] > 0


def test_windows_and_display_encoded_pictures_are_lined_up(tmp_path: Path, measured: Run) -> None:
    """A cropped data window is compared where it lies; a PNG without a colourspace is display-encoded already."""
    a = _write(tmp_path / "a", picture=moved)
    display, data = Window(0, 0, SIZE, SIZE), Window(20, -6, SIZE + 5, 180)
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    for frame in FRAMES:
        cut = framed(moved(frame), data, display)
        write_exr(tmp_path / "b" / f"b.{frame}.exr", PartSpec(channels(cut, np.float32), box=data, display=display))
        eight = np.rint(_encoded(moved(frame)) * 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / "c" / f"c.{frame}.png"), np.ascontiguousarray(eight[..., ::-1]))
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[:180, 20:] = 1
    write_exr(tmp_path / "mask.exr", PartSpec({"A": mask}))
    words = (a, tmp_path / "b" / "b.%04d.exr", "--no-faces")
    assert measured(*words, "--mask", tmp_path / "mask.exr")["b_from_a"]["mse"] == 0
    assert measured(*words)["b_from_a"]["mse"] > 0.01
    png = measured(a, tmp_path / "c" / "c.%04d.png", "--no-faces", "--colorspace-b", "")
    assert png["b_from_a"]["psnr"] > 50


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--frames", "1001-1005"], 3, "1005"),
        (["--column", "9999"], 2, "--column 9999 lies outside"),
        (["--mask", "{b}", "--mask-channel", "Z"], 3, "no channel 'Z'"),
    ],
)
def test_what_cannot_be_compared_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, text: str
) -> None:
    a, b = _write(tmp_path / "a"), _write(tmp_path / "b")
    said = [word.replace("{b}", b) for word in words]
    assert main(["metrics", a, b, "--no-faces", "--colorspace", COLORSPACE, *said]) == status
    assert text in capsys.readouterr().err


def test_other_frames_and_other_sizes_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, later = _write(tmp_path / "a"), _write(tmp_path / "b", range(2001, 2003))
    assert main(["metrics", a, later, "--no-faces"]) == 3
    assert "A has 1001-1003; B has 2001-2002" in capsys.readouterr().err
    small = _write(tmp_path / "c", picture=lambda frame: moved(frame)[:100])
    assert main(["metrics", a, small, "--no-faces"]) == 4
    assert "B is 224x100, A 224x224" in capsys.readouterr().err


def test_networks_that_are_not_imported_are_none(own_models: ModelStore) -> None:
    assert Perceptual.imported(own_models) is None
    assert Identity.imported(own_models) is None
