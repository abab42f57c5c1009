"""The promises of a render, for this effect, on real EXR through the real pipeline with small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from host_bridge.errors import EffectError
from inference_server.effects.vtoonify.networks import Networks
from inference_server.models.store import ModelStore
from inference_server.runs import FrameDone, Progress, Warned
from tests.inference_server.effects.vtoonify.conftest import Lab, encoded, job, plan_of
from tests.inference_server.shots.heads import write_heads
from tests.plate_files import PartSpec, independent_read, same_bits, write_exr
from tests.portrait import write_shot


def samples(path: str) -> dict[str, NDArray[Any]]:
    (part,) = independent_read(path)
    return part


def changed(pattern: str, folder: Path, frame: int) -> NDArray[np.bool_]:
    """Where a result differs from its plate."""
    before, after = samples(pattern % frame), samples(str(folder / f"o.{frame}.exr"))
    return np.asarray(np.any([before[c].view(np.uint16) != after[c].view(np.uint16) for c in "RGB"], axis=0))


def specials(size: int) -> NDArray[np.float16]:
    """A channel with everything that is not a picture."""
    out = np.zeros((size, size), np.float16)
    out.reshape(-1)[::7] = np.float16(np.nan)
    out.reshape(-1)[1::7] = np.float16(np.inf)
    return out


def test_outside_the_matte_and_in_other_channels_every_bit_is_the_plates(lab: Lab, tmp_path: Path) -> None:
    pattern = write_shot(
        tmp_path / "in", range(1001, 1003), extra={"Z": specials(224), "A": np.ones((224, 224), np.float16)}
    )
    lab.run(job(pattern, tmp_path, matte_output=str(tmp_path / "m.%04d.exr")))
    for frame in (1001, 1002):
        before, after = samples(pattern % frame), samples(str(tmp_path / f"o.{frame}.exr"))
        matte = next(iter(samples(str(tmp_path / f"m.{frame}.exr")).values()))
        assert same_bits(before["Z"], after["Z"])
        assert same_bits(before["A"], after["A"])
        assert after["R"].dtype == np.float16
        touched = changed(pattern, tmp_path, frame)
        assert not (touched & (matte == 0)).any()
        assert touched[matte > 0.9].mean() > 0.95


def test_mix_0_is_a_copy_and_small_mixes_come_near(lab: Lab, shot: str, tmp_path: Path) -> None:
    lab.run(job(shot, tmp_path, {"mix": {"keys": [[1001, 0.0], [1005, 0.01]]}}, frames="1001,1005"))
    assert (tmp_path / "o.1001.exr").read_bytes() == Path(shot % 1001).read_bytes()
    before, after = samples(shot % 1005), samples(str(tmp_path / "o.1005.exr"))
    moved = max(float(np.abs(before[c].astype(np.float32) - after[c].astype(np.float32)).max()) for c in "RGB")
    assert 0 < moved < 0.02  # a hundredth of what a picture holds


def test_highlights_and_negatives_survive_and_what_is_no_number_stays(lab: Lab, tmp_path: Path) -> None:
    """A catch light of 12, a negative pixel and a NaN in the middle of the face."""
    pattern = write_shot(tmp_path / "in", range(1001, 1003))
    for frame in (1001, 1002):
        part = {name: value.copy() for name, value in samples(pattern % frame).items()}
        for name in part:
            part[name][70:74, 96:100] = 12.0
            part[name][90:92, 96:98] = -0.25
            part[name][100, 100] = np.float16(np.nan)
        write_exr(pattern % frame, PartSpec(part))
    lab.run(job(pattern, tmp_path))
    after = samples(str(tmp_path / "o.1001.exr"))
    for name in "RGB":
        assert after[name][71, 97] > 10
        assert after[name][91, 97] < 0.9
        assert np.isnan(after[name][100, 100])
        assert np.isfinite(np.delete(after[name].reshape(-1), 100 * 224 + 100)).all()
    assert changed(pattern, tmp_path, 1001).sum() > 5000


@pytest.mark.parametrize("mode", ["follow", "published"])
def test_any_chunk_equals_the_whole_smoothing_included(parsing_lab: Lab, shot: str, tmp_path: Path, mode: str) -> None:
    """Parsing maps smoothed over the shot, a keyframed degree and colour: every frame alone is byte-equal."""
    params = {
        "crop": mode,
        "degree": {"keys": [[1001, 0.0], [1005, 1.0]]},
        "color": {"keys": [[1001, 0.2], [1005, 0.8]]},
    }
    whole = parsing_lab.run(job(shot, tmp_path / "whole", params))
    assert plan_of(whole)["smoothing"] == "dis, 5 frames"
    for chunk in ("1004", "1001", "1002-1003", "1005"):
        parsing_lab.run(job(shot, tmp_path / "chunk", params, frames=chunk))
    pictures = set()
    for frame in range(1001, 1006):
        data = (tmp_path / "whole" / f"o.{frame}.exr").read_bytes()
        assert data == (tmp_path / "chunk" / f"o.{frame}.exr").read_bytes(), frame
        pictures.add(data)
    assert len(pictures) == 5


def test_a_second_render_learns_nothing_again_whatever_the_style(
    parsing_lab: Lab, shot: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the encoder nor a smoothed map is asked for a second time, also with another network and style."""
    parsing_lab.run(job(shot, tmp_path / "first", frames="1001"))

    def never(self: Networks, model: object) -> None:
        raise AssertionError("the encoder was loaded again")

    monkeypatch.setattr(Networks, "encoder", never)
    pictures = [(tmp_path / "first" / "o.1001.exr").read_bytes()]
    for params in ({"style": "Cleo_03"}, {"model": "t"}, {"degree": 0.9}, {"precision": "bf16"}, {"color": 0.0}):
        events = parsing_lab.run(job(shot, tmp_path / "again", params, frames="1001"))
        assert not [e for e in events if isinstance(e, Progress) and e.stage != "render"]
        pictures.append((tmp_path / "again" / "o.1001.exr").read_bytes())
    assert len(set(pictures)) == 6


def test_networks_of_one_style_or_degree_keep_to_theirs(lab: Lab, shot: str, tmp_path: Path) -> None:
    pictures = {}
    for name, params in {
        "one": {"model": "d-one", "style": "Cleo_03"},
        "one, other degree": {"model": "d-one", "style": "Cleo_03", "degree": 1.0},
        "keep": {"model": "d-keep", "style": "Bob_02"},
        "keep, colour": {"model": "d-keep", "style": "Bob_02", "color": 0.3, "color_transfer": False},
        "any, no transfer": {"color_transfer": False},
        "any, colour 0": {"color": 0.0},
        "any": {},
    }.items():
        lab.run(job(shot, tmp_path, params, frames="1001"))
        pictures[name] = encoded(str(tmp_path / "o.1001.exr"))
    for a, b in (("one", "one, other degree"), ("keep", "keep, colour"), ("any, no transfer", "any, colour 0")):
        assert np.array_equal(pictures[a], pictures[b]), (a, b)
    assert not np.array_equal(pictures["any"], pictures["any, colour 0"])


def test_half_precision_is_near_full(lab: Lab, shot: str, tmp_path: Path) -> None:
    pictures = {}
    for precision in ("fp32", "fp16", "bf16"):
        events = lab.run(job(shot, tmp_path, {"precision": precision}, frames="1001"))
        assert plan_of(events)["precision"] == precision
        pictures[precision] = encoded(str(tmp_path / "o.1001.exr"))
    for precision, bound in (("fp16", 0.02), ("bf16", 0.1)):
        difference = np.abs(pictures[precision] - pictures["fp32"])
        assert 0 < difference.max() < bound


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_a_gpu_draws_what_the_cpu_draws(
    parsing_lab: Lab, parsing_models: ModelStore, shot: str, tmp_path: Path, precision: str
) -> None:
    gpu = Lab(tmp_path, parsing_models, device="cuda")
    gpu.run(job(shot, tmp_path / "gpu", {"precision": precision}, frames="1002"))
    gpu.runner.close()
    parsing_lab.run(job(shot, tmp_path / "cpu", frames="1002"))
    one, other = (encoded(str(tmp_path / name / "o.1002.exr")) for name in ("gpu", "cpu"))
    assert float(np.abs(one - other).max()) < (0.01 if precision == "fp32" else 0.1)


# --- faces that are hard to have --------------------------------------------------------------------------------------


def test_a_frame_without_a_face_is_a_copy_and_the_others_are_drawn(parsing_lab: Lab, tmp_path: Path) -> None:
    seen: list[Any] = [[(40, 20, 200)]] * 3
    pattern = write_heads(tmp_path / "in", (256, 256), [*seen, *([[]] * 9), *seen])  # longer than a track bridges
    events = parsing_lab.run(job(pattern, tmp_path, frames="1001,1003,1008,1013"))
    done = {e.frame: e.status for e in events if isinstance(e, FrameDone)}
    assert done == {1001: "rendered", 1003: "rendered", 1008: "identity", 1013: "rendered"}
    assert (tmp_path / "o.1008.exr").read_bytes() == Path(pattern % 1008).read_bytes()
    assert any(isinstance(e, Warned) and e.code == "face.none" and e.frame == 1008 for e in events)


def test_two_people_each_get_their_own_and_one_can_be_chosen(lab: Lab, tmp_path: Path) -> None:
    heads = [(0, 30, 170), (150, 60, 130)]
    pattern = write_heads(tmp_path / "in", (304, 208), [heads, heads])
    both = lab.run(job(pattern, tmp_path / "both", face="all", frames="1001"))
    assert len(plan_of(both)["size"]) == 2
    lab.run(job(pattern, tmp_path / "right", face="220,110", frames="1001"))
    lab.run(job(pattern, tmp_path / "large", face="largest", frames="1001"))
    two, right, large = (changed(pattern, tmp_path / name, 1001) for name in ("both", "right", "large"))
    assert large[:, :120].any()
    assert not large[:, 230:].any()
    assert right[:, 200:].any()
    assert not right[:, :120].any()
    assert np.array_equal(two, right | large)


def test_a_face_of_20_pixels_and_a_shot_of_two_frames(parsing_lab: Lab, tmp_path: Path) -> None:
    """The eyes are some 8 px apart; the window of the smoothing is five times the shot."""
    pattern = write_heads(tmp_path / "in", (211, 157), [[(80, 60, 46)], [(81, 60, 46)]])
    events = parsing_lab.run(job(pattern, tmp_path))
    assert [e.status for e in events if isinstance(e, FrameDone)] == ["rendered", "rendered"]
    touched = changed(pattern, tmp_path, 1002)
    rows, columns = np.nonzero(touched)
    assert touched.sum() > 150
    assert 60 < columns.mean() < 140
    assert rows.max() - rows.min() < 60


def test_a_face_that_leaves_the_frame_is_drawn_as_far_as_it_is_there(lab: Lab, tmp_path: Path) -> None:
    frames = [[(40 + 24 * i, 10, 180)] for i in range(7)]
    pattern = write_heads(tmp_path / "in", (240, 200), frames)
    events = lab.run(job(pattern, tmp_path))
    statuses = [e.status for e in events if isinstance(e, FrameDone)]
    assert len(statuses) == 7
    assert statuses[:4] == ["rendered"] * 4


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"style": "Bob_2"}, "unknown value of style"),
        ({"model": "d-one", "style": "Bob_02"}, "for model d-one"),
        ({"model": "vtoonify-d-cartoon-s-d"}, "unknown value of model"),
        ({"degree": 1.5}, "degree"),
        ({"regions": "chin"}, "region"),
        ({"padding_left": {"keys": [[1, 100], [5, 200]]}}, "does not animate"),
        ({"flow": "raft-things"}, "flow"),
    ],
)
def test_values_that_do_not_exist_are_refused(
    lab: Lab, shot: str, tmp_path: Path, params: dict[str, Any], words: str
) -> None:
    with pytest.raises(EffectError, match=words) as caught:
        lab.run(job(shot, tmp_path, params))
    assert caught.value.code == "effect.parameter"
    assert caught.value.remedy
    if "model" in params and "style" not in params:
        assert "faceplate models pull" in caught.value.remedy


def test_the_pictures_metadata_name_every_model_with_hash_and_licence(
    parsing_lab: Lab, shot: str, tmp_path: Path
) -> None:
    parsing_lab.run(job(shot, tmp_path, frames="1001"))
    data = (tmp_path / "o.1001.exr").read_bytes()[:20000]
    for name in ("d-any", "vtoonify-codes-small", "vtoonify-encoder", "bisenet-faceparsing"):
        model = parsing_lab.models.get(name)
        assert name.encode() in data
        assert model.sha256.encode() in data
    assert b"MIT" in data


def test_a_style_picture_is_an_exemplar_where_the_network_takes_any(lab: Lab, shot: str, tmp_path: Path) -> None:
    still = str(Path(shot % 1003))
    lab.run(job(shot, tmp_path / "own", frames="1001"))
    events = lab.run(job(shot, tmp_path / "exemplar", frames="1001", style_image=still))
    assert not [e for e in events if isinstance(e, Warned) and "Style picture" in e.message]
    own, other = (encoded(str(tmp_path / name / "o.1001.exr")) for name in ("own", "exemplar"))
    assert not np.array_equal(own, other)
    with pytest.raises(EffectError, match="takes no Style picture"):
        lab.run(job(shot, tmp_path, {"model": "d-one", "style": "Cleo_03"}, frames="1001", style_image=still))
    blank = write_heads(tmp_path / "blank", (96, 64), [[]])
    events = lab.run(replace(job(shot, tmp_path / "blank", frames="1001"), style_image=blank % 1001))
    assert [e for e in events if isinstance(e, Warned) and "Style picture" in e.message]
