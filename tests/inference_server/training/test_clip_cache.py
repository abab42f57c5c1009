"""What goes into the cache of clips comes out: pictures nearly, flow to an eighth of a pixel, the rest exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from inference_server.training import clip_cache
from inference_server.training.clip_cache import (
    CachedClips,
    CachedPairs,
    CacheWriter,
    ClipCache,
    PackedFrame,
    middles,
    split_windows,
)
from inference_server.training.draws import Draw
from inference_server.training.errors import TrainingError
from inference_server.training.recipes.two_stage_losses import warped

SIZE = 64


def picture(seed: int) -> clip_cache.Picture:
    """Smooth colours, as pictures are."""
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [127 + 100 * np.sin(5 * x + 3 * y * (c - 1) + phase[c]) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def frame(seed: int, flow: tuple[float, float] = (0.0, 0.0)) -> PackedFrame:
    field = np.broadcast_to(np.array(flow, np.float32), (SIZE, SIZE, 2)).copy()
    valid, head = np.ones((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE), np.float32)
    valid[:, : SIZE // 2] = 0
    head[SIZE // 4 :] = 1
    return PackedFrame(picture(seed), (picture(seed + 100), picture(seed + 200)), field, valid, head)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    writer = CacheWriter(SIZE, ("a", "b"), {"made": "of waves"})
    for clip, first in (("one", 0), ("one", 10), ("two", 20)):
        writer.window(clip, [frame(first + i, (2.3, -1.7)) for i in range(4)])
    path = tmp_path / "deep" / "clips.safetensors"
    writer.write(path)
    return path


def test_what_was_packed_is_read(packed: Path) -> None:
    cache = ClipCache(packed)
    assert (cache.size, cache.styles, cache.facts) == (SIZE, ("a", "b"), {"made": "of waves"})
    assert cache.clips == ("one", "one", "two")
    assert cache.windows == ((0, 4), (4, 4), (8, 4))
    for number, seed in ((0, 0), (5, 11), (11, 23)):
        for which, wanted in ((0, picture(seed)), (1, picture(seed + 100)), (2, picture(seed + 200))):
            apart = np.abs(cache.picture(number, which).astype(int) - wanted)
            assert apart.mean() < 1.0
            assert apart.max() <= 8
    flow, valid, head = cache.motion(5)
    held = valid[0] > 0
    assert torch.equal(held, (torch.arange(SIZE) >= SIZE // 2 + 1).expand(SIZE, SIZE))  # the border between is unsure
    assert (flow[:, held] - torch.tensor([2.3, -1.7])[:, None]).abs().max() <= 1 / 16 + 1e-5
    rows = head[0, :, 0]
    assert torch.equal(rows[: SIZE // 4 - 1], torch.zeros(SIZE // 4 - 1))
    assert torch.equal(rows[SIZE // 4 + 1 :], torch.ones(3 * SIZE // 4 - 1))


def test_pixels_that_move_too_fast_do_not_hold(tmp_path: Path) -> None:
    writer = CacheWriter(SIZE, ("a", "b"))
    writer.window("fast", [frame(0), frame(1, (40.0, 0.0))])
    writer.write(tmp_path / "fast.safetensors")
    flow, valid, _ = ClipCache(tmp_path / "fast.safetensors").motion(1)
    assert float(valid.max()) == 0
    assert float(flow.abs().max()) == 0


def test_pairs_and_windows_depend_on_item_and_draw_alone(packed: Path) -> None:
    cache = ClipCache(packed)
    pairs = CachedPairs.of(cache, (0, 2), surroundings=0.5)
    assert pairs.size() == 8
    styles = set()
    for index in range(12):
        draw = Draw(1, 2, index)
        pair, again = pairs.pair(5, draw), pairs.pair(5, draw)
        assert torch.equal(pair.y, again.y)
        number = int(pair.style.argmax())
        styles.add(number)
        assert torch.equal(pair.x, cache.tensor(9, 0))
        assert torch.equal(pair.y, cache.tensor(9, 1 + number))
        assert pair.weight is not None
        assert sorted(pair.weight.unique().tolist())[:: len(pair.weight.unique()) - 1] == [0.5, 1.0]
    assert styles == {0, 1}
    window = CachedClips(cache, (1,)).window(0, Draw(0, 0, 3), 3)
    assert window.frames.shape == (3, 3, SIZE, SIZE)
    assert float(window.flow[0].abs().max()) == 0
    assert float(window.valid[0].min()) == 1
    assert torch.equal(window.background[1], 1 - cache.motion(5)[2])
    with pytest.raises(TrainingError, match="windows of 4 frames"):
        CachedClips(cache, (1,)).window(0, Draw(0, 0, 0), 5)


def test_flow_points_back(tmp_path: Path) -> None:
    """A picture that moved right by two pixels is the one before, warped by the packed flow."""
    wide = np.concatenate([picture(3), picture(3)[:, ::-1]], axis=1)
    before, now = wide[:, 20 : 20 + SIZE], wide[:, 18 : 18 + SIZE]
    field = np.broadcast_to(np.array([-2, 0], np.float32), (SIZE, SIZE, 2))
    ones = np.ones((SIZE, SIZE), np.float32)
    writer = CacheWriter(SIZE, ())
    writer.window("c", [PackedFrame(p, (), field, ones, ones) for p in (before, now)])
    writer.write(tmp_path / "c.safetensors")
    cache = ClipCache(tmp_path / "c.safetensors")
    moved, inside = warped(cache.tensor(0, 0)[None], cache.motion(1)[0][None])
    apart = ((moved - cache.tensor(1, 0)).abs() * inside).mean()
    still = (cache.tensor(0, 0) - cache.tensor(1, 0)).abs().mean()
    assert apart < 0.2 * still


def test_the_last_window_of_a_clip_with_several_is_kept_aside(packed: Path) -> None:
    cache = ClipCache(packed)
    assert split_windows(cache) == ((0, 2), (1,))
    assert middles(cache, (1,)) == (5, 7)


def test_too_large_empty_and_foreign_files_are_refused(
    tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError, match="holds 0 frames"):
        CacheWriter(SIZE, ("a",)).write(tmp_path / "none.safetensors")
    writer = CacheWriter(SIZE, ("a", "b"))
    writer.window("one", [frame(0)])
    monkeypatch.setattr(clip_cache, "LIMIT", (1 << 16) + writer.bytes - 1)
    with pytest.raises(TrainingError, match="fewer windows"):
        writer.write(tmp_path / "large.safetensors")
    with pytest.raises(ValueError, match="with 1 styles"):
        writer.window("one", [PackedFrame(picture(0), (picture(1),), *([np.zeros((SIZE, SIZE), np.float32)] * 3))])
    for name, data in (("text", b"no"), ("cut", packed.read_bytes()[:-50])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(TrainingError, match="pack the clips again"):
            ClipCache(tmp_path / name)
    save_file({"x": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(TrainingError, match="its format is None"):
        ClipCache(tmp_path / "other")
