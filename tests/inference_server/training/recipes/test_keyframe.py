"""What keyframe training adds to the two-stage recipes: its data, and how a translator of several styles begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference_server.networks.two_stage import Translator
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.keyframe import nearest_style, one_style, widths_of
from inference_server.training.recipes.keyframe_data import (
    CarriedPairs,
    KeyframeData,
    PaintedPairs,
    ShotWindows,
    read_data,
)

HEIGHT, WIDTH, FRAMES = 48, 64, 5
DRAW = Draw(0, 0, 0)


@pytest.fixture
def data() -> KeyframeData:
    """Five frames, a hole before the fourth; the first is painted in a square, and carried to the second."""
    rng = np.random.default_rng(1)
    square = np.zeros((HEIGHT, WIDTH), np.uint8)
    square[20:30, 8:20] = 255
    frames = rng.integers(0, 256, (FRAMES, 3, HEIGHT, WIDTH), dtype=np.uint8)
    return KeyframeData(
        frames=frames,
        numbers=np.array([11, 12, 13, 20, 21], np.int64),
        matte=np.stack([np.roll(square, 4 * i, axis=1) for i in range(FRAMES)]),
        flow=rng.normal(size=(FRAMES, 2, HEIGHT, WIDTH)).astype(np.float16),
        valid=np.ones((FRAMES, HEIGHT, WIDTH), np.uint8),
        first=np.array([1, 0, 0, 1, 0], np.uint8),
        painted=np.array([11], np.int64),
        paint=rng.random((1, 3, HEIGHT, WIDTH)).astype(np.float16),
        weight=square[None],
        carried_to=np.array([12], np.int64),
        carried=rng.integers(0, 256, (1, 3, HEIGHT, WIDTH), dtype=np.uint8),
        holds=square[None],
    )


def test_the_file_comes_back_and_damage_is_named(data: KeyframeData, tmp_path: Path) -> None:
    data.write(tmp_path)
    again = read_data(tmp_path)
    assert again.digest == data.digest
    np.testing.assert_array_equal(again.flow, data.flow)
    other = replace(data, paint=data.paint * np.float16(0.5))
    assert other.digest != data.digest
    (tmp_path / "shot.safetensors").write_bytes(b"no")
    with pytest.raises(TrainingError, match="cannot be used"):
        read_data(tmp_path)


def test_pairs_are_cut_to_what_counts(data: KeyframeData) -> None:
    pair = PaintedPairs(data, 16).pair(0, DRAW)
    rows, columns = slice(0, 48), slice(0, 44)  # the square with its border of 24 pixels
    torch.testing.assert_close(pair.x, torch.from_numpy(data.frames[0][:, rows, columns]).float() / 127.5 - 1)
    paint = torch.from_numpy(data.paint[0][:, rows, columns].astype(np.float32)) * 2 - 1
    torch.testing.assert_close(pair.y, paint)
    assert pair.weight is not None
    assert float(pair.weight.sum()) == 120.0
    near = CarriedPairs(data, 16).pair(0, DRAW)
    torch.testing.assert_close(near.x, torch.from_numpy(data.frames[1][:, rows, columns]).float() / 127.5 - 1)


def test_windows_never_run_over_a_hole(data: KeyframeData) -> None:
    assert data.longest_run == 3
    assert ShotWindows.of(data, 2, 16).starts == (0, 1, 3)
    assert ShotWindows.of(data, 3, 16).starts == (0,)
    with pytest.raises(TrainingError, match="nowhere do 4 frames"):
        ShotWindows.of(data, 4, 16)
    window = ShotWindows.of(data, 2, 16).window(1, DRAW, 2)
    assert window.frames.shape[0] == 2
    assert float(window.flow[0].abs().max()) == 0.0
    columns = window.frames.shape[-1]
    expected = torch.from_numpy(data.flow[2, :, :, :columns].astype(np.float32))
    torch.testing.assert_close(window.flow[1], expected)
    assert float(1 - window.background[0, 0, 25, 12]) == 1.0  # the matte's square, moved by 4 pixels


def test_a_translator_of_several_styles_begins_as_the_one_nearest_to_the_paint(data: KeyframeData) -> None:
    torch.manual_seed(3)
    several = Translator((8, 16), 3)
    with torch.no_grad():
        for parameter in several.parameters():
            parameter.normal_(0, 0.4)
    several.eval()
    with torch.no_grad():
        drawn = several(data.picture(0)[None], torch.tensor([[0.0, 0.0, 1.0]]))[0]
    pairs = PaintedPairs(replace(data, paint=((drawn + 1) / 2).numpy()[None].astype(np.float16)), 16)
    assert nearest_style(several, pairs) == 2
    alone = one_style(several, pairs).eval()
    assert alone.styles == 1
    assert widths_of(alone) == (8, 16)
    with torch.no_grad():
        inner = (slice(None), slice(16, -16), slice(16, -16))
        torch.testing.assert_close(alone(data.picture(0)[None])[0][inner], drawn[inner], rtol=1e-3, atol=1e-4)
    assert one_style(alone, pairs) is alone
