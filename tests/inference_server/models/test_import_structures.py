"""Each official structure of a file, in tiny sizes, through the whole importer and back into a network."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from host_bridge.errors import ModelError
from inference_server.models.builders import build, layout
from inference_server.models.cards import Card
from inference_server.models.importer import Step, import_file, importing
from inference_server.models.loading import load_network, load_style_codes, load_tensors
from inference_server.models.store import ModelStore
from tests.inference_server.models.conftest import (
    TINY_ENCODER,
    TINY_STYLEGAN2,
    TINY_VTOONIFY,
    leftovers,
    part,
    state_of,
    write_nvidia,
)

Cards = Callable[..., Card]


def test_vtoonify_keeps_what_inference_reads_and_gives_the_same_picture(
    tmp_path: Path, store: ModelStore, card: Cards
) -> None:
    state = state_of("vtoonify", TINY_VTOONIFY)
    torch.save({"g_ema": state}, tmp_path / "tiny.pt")
    done = import_file(tmp_path / "tiny.pt", store, card(part("vtoonify", TINY_VTOONIFY, root="g_ema")))
    unread = layout("vtoonify", TINY_VTOONIFY).unread
    assert unread
    assert done.model.stored.dropped == sum(state[name].numel() for name in unread)
    assert done.model.stored.kept == sum(v.numel() for n, v in state.items() if n not in unread)

    network = load_network("tiny", store=store)
    reference = build("vtoonify", TINY_VTOONIFY).eval()
    reference.load_state_dict(state, strict=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 5, 16, 24, generator=generator)
    style = torch.randn(1, 10, 8, generator=generator)
    with torch.no_grad():
        assert torch.equal(network(x, style, 0.4), reference(x, style, 0.4))
    names = set(network.state_dict())
    assert names == set(state) - unread
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_official_sizes_of_vtoonify_d_leave_98_of_164_million() -> None:
    official = layout("vtoonify", {"backbone": "dualstylegan", "in_size": 256, "out_size": 1024})
    count = {name: int(np.prod(entry.shape)) for name, entry in official.entries.items()}
    buffers = {name for name in count if ".noises." in name or name.endswith("kernel")}
    assert sum(n for name, n in count.items() if name not in buffers) == 163_812_547
    kept = sum(n for name, n in count.items() if name not in buffers | official.unread)
    assert 98_100_000 < kept < 98_300_000


@pytest.mark.parametrize("legacy", [False, True])
def test_encoder_file_with_decoder_and_latent_average(
    tmp_path: Path, store: ModelStore, card: Cards, legacy: bool
) -> None:
    config = {"space": "z+", **TINY_ENCODER}
    state = state_of("psp", config)
    whole = {f"encoder.{k}": v for k, v in state.items()} | {"decoder.style.1.weight": torch.zeros(3)}
    content = {
        "state_dict": whole,
        "latent_avg": torch.full((8, 16), 0.25),
        "opts": {"device": "cuda", "lr": 1e-4, "w_norm": None, "train": True, "sizes": [1, 2]},
    }
    torch.save(content, tmp_path / "encoder.pt", _use_new_zipfile_serialization=not legacy)
    fields: dict[str, Any] = {"root": "state_dict", "prefix": "encoder.", "ignore": ["decoder.*"]}
    text = part("psp", config, **fields) + '[tensors.latent_avg]\npath = "latent_avg"\nshapes = [[8, 16]]\n'
    done = import_file(tmp_path / "encoder.pt", store, card(text))
    assert done.left_out == ("opts",)
    network = load_network("tiny", store=store)
    assert {k: v.tolist() for k, v in network.state_dict().items()} == {k: v.tolist() for k, v in state.items()}
    assert torch.equal(load_tensors("tiny", store=store)["latent_avg"], content["latent_avg"])  # type: ignore[arg-type]


def test_training_snapshot_with_a_namespace_needs_the_cards_word(
    tmp_path: Path, store: ModelStore, card: Cards
) -> None:
    state = state_of("stylegan2", TINY_STYLEGAN2)
    raw = state_of("stylegan2", TINY_STYLEGAN2, seed=1)
    args = argparse.Namespace(iter=3, path="x", nested=argparse.Namespace(a=1))
    torch.save({"g": raw, "g_ema": state, "g_optim": {"state": {}}, "args": args}, tmp_path / "tiny.pt")
    text = part("stylegan2", TINY_STYLEGAN2, root="g_ema") + part(
        "stylegan2", TINY_STYLEGAN2, name="raw", root="g", optional=True
    )
    judge = {"size": 16, "channel_max": 8}
    text += part("stylegan2-discriminator", judge, name="discriminator", root="d", optional=True)
    with pytest.raises(ModelError, match=r"argparse\.Namespace") as caught:
        import_file(tmp_path / "tiny.pt", store, card(text))
    assert caught.value.code == "model.unsafe"
    done = import_file(tmp_path / "tiny.pt", store, card('objects = ["argparse.Namespace"]\n' + text))
    assert set(done.left_out) == {"g_optim", "args"}
    for name, expected in (("main", state), ("raw", raw)):
        loaded = load_network("tiny", part=name, store=store).state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in expected.items())
    with pytest.raises(ModelError, match="discriminator"):
        load_network("tiny", part="discriminator", store=store)


@pytest.mark.parametrize(
    ("network", "config", "prefix"),
    [
        ("hrnet", {"points": 5, "channels": [4, 4, 8, 8], "modules": [1, 1, 1], "blocks": 1, "stem": 4}, "module."),
        ("bisenet", {"classes": 3, "width": 8}, ""),
        ("arcface", {"image_size": 32, "embedding": 8, "widths": [16, 16, 16, 16], "depths": [1, 1, 1, 1]}, ""),
        (
            "raft",
            {
                "bottleneck": False,
                "widths": [8, 8, 8],
                "features": 8,
                "hidden": 8,
                "context": 8,
                "radius": 1,
                "correlation_widths": [8, 8],
                "flow_widths": [8, 8],
                "motion": 8,
                "head": 8,
            },
            "module.",
        ),
        ("e4e", TINY_ENCODER, ""),
        ("dualstylegan", {"size": 64, "style_dim": 8, "n_mlp": 7, "channel_max": 8}, ""),
    ],
)
def test_plain_state_dicts_with_and_without_a_prefix(
    tmp_path: Path, store: ModelStore, card: Cards, network: str, config: dict[str, object], prefix: str
) -> None:
    state = state_of(network, config)
    torch.save({prefix + k: v for k, v in state.items()}, tmp_path / "tiny.pt", _use_new_zipfile_serialization=False)
    import_file(tmp_path / "tiny.pt", store, card(part(network, config, prefix=prefix)))
    loaded = load_network("tiny", store=store).state_dict()
    assert list(loaded) == list(state)
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_as_torch_saves_it(tmp_path: Path, store: ModelStore, card: Cards, legacy: bool) -> None:
    """An OrderedDict that carries versions as an attribute, and a list of parameters that still want gradients."""
    network = build("bisenet", {"classes": 3, "width": 8})
    state = network.state_dict(keep_vars=True)
    assert hasattr(state, "_metadata")
    torch.save(state, tmp_path / "iter.pth.tar", _use_new_zipfile_serialization=not legacy)
    import_file(tmp_path / "iter.pth.tar", store, card(part("bisenet", {"classes": 3, "width": 8})))
    loaded = load_network("tiny", store=store).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in network.state_dict().items())


def test_lpips_joins_its_two_files(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    from inference_server.models.loading import load_lpips

    config = {"trunk": "alex", "width_divisor": 32}
    full = state_of("lpips-heads", config)  # the whole network: both pieces are cut from it
    torch.save({k: v.abs() for k, v in full.items() if k.startswith("lin") and "lins" not in k}, tmp_path / "a.pth")
    trunk = {f"features.{k.split('.', 2)[2]}": v for k, v in full.items() if k.startswith("net.")}
    torch.save(trunk | {"classifier.1.weight": torch.zeros(2, 2)}, tmp_path / "t.pth")
    import_file(tmp_path / "a.pth", store, card(part("lpips-heads", config), id="lpips-alex"))
    import_file(
        tmp_path / "t.pth", store, card(part("lpips-trunk", config, ignore=["classifier.*"]), id="torchvision-alexnet")
    )
    network = load_lpips("alex", store=store)
    assert torch.equal(network.state_dict()["net.slice1.0.weight"], full["net.slice1.0.weight"])
    picture = torch.rand(1, 3, 40, 40) * 2 - 1
    assert float(network(picture, picture)) == 0
    assert float(network(picture, -picture)) > 0
    with pytest.raises(ModelError, match="stands alone"):
        load_network("lpips-alex", store=store)


def test_half_precision_is_widened_and_integers_are_not_taken_for_floats(
    tmp_path: Path, store: ModelStore, card: Cards
) -> None:
    state = {k: v.half() for k, v in state_of("stylegan2", TINY_STYLEGAN2).items()}
    torch.save(state, tmp_path / "tiny.pt")
    import_file(tmp_path / "tiny.pt", store, card(part("stylegan2", TINY_STYLEGAN2)))
    loaded = load_network("tiny", store=store).state_dict()
    assert all(loaded[k].dtype == torch.float32 and torch.equal(loaded[k], v.float()) for k, v in state.items())
    torch.save(state | {"input.input": torch.zeros(1, 8, 4, 4, dtype=torch.int32)}, tmp_path / "tiny.pt")
    with pytest.raises(ModelError, match=r"input\.input: expected float32 \[1, 8, 4, 4\], got int32"):
        import_file(tmp_path / "tiny.pt", store, card(part("stylegan2", TINY_STYLEGAN2)), replace=True)


# --------------------------------------------------------------------------------------------------- style codes


def codes_file(path: Path, codes: object, version: int = 3) -> None:
    array = np.empty((), dtype=object)
    array[()] = codes
    if version == 3:
        np.save(path, array, allow_pickle=True)
        return
    import pickle  # np.save writes protocol 3; older files have protocol 2, where bytes are spelled as a call

    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})  # type: ignore[no-untyped-call]
        pickle.dump(array, stream, protocol=version)


CODES = 'container = "npy-dict"\nstyle_codes = { shape = [1, 4, 8], count = 3 }\n'


@pytest.mark.parametrize("version", [2, 3, 4])
def test_style_codes_keep_order_and_values(tmp_path: Path, store: ModelStore, card: Cards, version: int) -> None:
    rng = np.random.default_rng(0)
    codes = {name: rng.standard_normal((1, 4, 8)).astype(np.float32) for name in ("b_2.jpg", "a_1.jpg", "ü.png")}
    codes_file(tmp_path / "codes.npy", codes, version)
    done = import_file(tmp_path / "codes.npy", store, card(CODES))
    assert done.model.stored.code_names == ("b_2.jpg", "a_1.jpg", "ü.png")
    loaded = load_style_codes("tiny", store=store)
    assert loaded.names == tuple(codes)
    assert np.array_equal(loaded.codes.numpy(), np.concatenate(list(codes.values())))
    assert loaded.index("a_1.jpg") == loaded.index("a_1") == 1
    with pytest.raises(KeyError):
        loaded.index("nobody")


@pytest.mark.parametrize(
    ("codes", "says"),
    [
        ({"a": np.zeros((1, 4, 8), np.float32)}, "expected 3 style codes, found 1"),
        ({"a": np.zeros((1, 4, 9), np.float32)}, r"expected float32 \[1, 4, 8\], got float32 \[1, 4, 9\]"),
        ({"a": np.zeros((1, 4, 8))}, "got float64"),
        ({3: np.zeros((1, 4, 8), np.float32)}, "expected names of style pictures"),
        ({"a": np.full((1, 4, 8), np.nan, np.float32)}, "not finite"),
        ({"a": "text"}, "got a str"),
        ([1, 2], "expected a dictionary"),
        ({}, "found none"),
    ],
)
def test_wrong_style_codes_are_refused(
    tmp_path: Path, store: ModelStore, card: Cards, codes: object, says: str
) -> None:
    codes_file(tmp_path / "codes.npy", codes)
    with pytest.raises(ModelError, match=says):
        import_file(tmp_path / "codes.npy", store, card(CODES))
    assert leftovers(store) == []


# --------------------------------------------------------------------------------------------- plain tensors


def test_directions_from_numpy_and_torch(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    values = np.linspace(-1, 1, 16).reshape(2, 8)
    np.save(tmp_path / "d.npy", values)
    text = 'container = "npy"\n[tensors.direction]\npath = ""\nshapes = [[-1, 8]]\n'
    import_file(tmp_path / "d.npy", store, card(text))
    loaded = load_tensors("tiny", store=store)["direction"]
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, torch.from_numpy(values).float())
    torch.save(torch.ones(1, 8), tmp_path / "d.pt")
    import_file(tmp_path / "d.pt", store, card('[tensors.direction]\npath = ""\nshapes = [[1, 8]]\n', id="other"))
    assert torch.equal(load_tensors("other", store=store)["direction"], torch.ones(1, 8))
    np.save(tmp_path / "d.npy", values[:, :7])
    with pytest.raises(ModelError, match=r"expected shape \[-1, 8\], got \[2, 7\]"):
        import_file(tmp_path / "d.npy", store, card(text), replace=True)


# ----------------------------------------------------------------------------------------- NVIDIA's pickles


def as_nvidia(state: dict[str, torch.Tensor], size: int) -> dict[str, torch.Tensor]:
    """The tiny StyleGAN2 under the names of stylegan2-ada-pytorch."""
    out = {"mapping.w_avg": torch.full((8,), 0.5)}
    for i in (1, 2):
        out[f"mapping.fc{i - 1}.weight"] = state[f"style.{i}.weight"]
        out[f"mapping.fc{i - 1}.bias"] = state[f"style.{i}.bias"]
    out["synthesis.b4.const"] = state["input.input"][0]
    fir = state["convs.0.conv.blur.kernel"] / 4

    def conv(theirs: str, ours: str, noise: int) -> None:
        out[f"{theirs}.weight"] = state[f"{ours}.conv.weight"][0]
        out[f"{theirs}.affine.weight"] = state[f"{ours}.conv.modulation.weight"]
        out[f"{theirs}.affine.bias"] = state[f"{ours}.conv.modulation.bias"]
        out[f"{theirs}.noise_strength"] = state[f"{ours}.noise.weight"][0]
        out[f"{theirs}.bias"] = state[f"{ours}.activate.bias"]
        out[f"{theirs}.noise_const"] = state[f"noises.noise_{noise}"][0, 0]
        out[f"{theirs}.resample_filter"] = fir

    def rgb(theirs: str, ours: str) -> None:
        out[f"{theirs}.weight"] = state[f"{ours}.conv.weight"][0]
        out[f"{theirs}.affine.weight"] = state[f"{ours}.conv.modulation.weight"]
        out[f"{theirs}.affine.bias"] = state[f"{ours}.conv.modulation.bias"]
        out[f"{theirs}.bias"] = state[f"{ours}.bias"].flatten()

    conv("synthesis.b4.conv1", "conv1", 0)
    rgb("synthesis.b4.torgb", "to_rgb1")
    for b, resolution in enumerate((8, 16)):
        conv(f"synthesis.b{resolution}.conv0", f"convs.{2 * b}", 2 * b + 1)
        conv(f"synthesis.b{resolution}.conv1", f"convs.{2 * b + 1}", 2 * b + 2)
        rgb(f"synthesis.b{resolution}.torgb", f"to_rgbs.{b}")
        out[f"synthesis.b{resolution}.resample_filter"] = fir
    out["synthesis.b4.resample_filter"] = fir
    assert resolution == size
    return out


SG2_BUFFERS = ("w_avg", "noise_const", "resample_filter")


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_stylegan2_pickle_is_renamed(tmp_path: Path, store: ModelStore, card: Cards, protocol: int) -> None:
    state = state_of("stylegan2", TINY_STYLEGAN2)
    kernel = build("stylegan2", TINY_STYLEGAN2).state_dict()["convs.0.conv.blur.kernel"]
    state = {k: kernel if k.endswith("kernel") else v for k, v in state.items()}
    write_nvidia(tmp_path / "g.pkl", as_nvidia(state, 16), SG2_BUFFERS, protocol)
    text = 'container = "nvidia-pickle"\n' + part("stylegan2", TINY_STYLEGAN2, root="G_ema", convert="stylegan2-ada")
    text += '[tensors.latent_avg]\npath = "latent_avg"\nshapes = [[8]]\n'
    import_file(tmp_path / "g.pkl", store, card(text))
    loaded = load_network("tiny", store=store).state_dict()
    assert set(loaded) == set(state)
    assert all(torch.allclose(loaded[k], v, rtol=0, atol=1e-7) for k, v in state.items())
    assert torch.equal(load_tensors("tiny", store=store)["latent_avg"], torch.full((8,), 0.5))


def test_stylegan2_pickle_of_another_architecture_says_which_names_differ(
    tmp_path: Path, store: ModelStore, card: Cards
) -> None:
    theirs = as_nvidia(state_of("stylegan2", TINY_STYLEGAN2), 16) | {"synthesis.b16.skip.weight": torch.zeros(1)}
    write_nvidia(tmp_path / "g.pkl", theirs, SG2_BUFFERS)
    text = 'container = "nvidia-pickle"\n' + part("stylegan2", TINY_STYLEGAN2, root="G_ema", convert="stylegan2-ada")
    with pytest.raises(ModelError, match=r"2 entries unexpected \(latent_avg, synthesis\.b16\.skip\.weight\)"):
        import_file(tmp_path / "g.pkl", store, card(text))
    with pytest.raises(ModelError, match=r"expected an entry 'G_other', found G, D, G_ema"):
        import_file(tmp_path / "g.pkl", store, card(text.replace("G_ema", "G_other")))


TINY_STYLEGAN3 = {
    "resolution": 16, "kernel": 1, "radial": True, "channel_base": 128, "channel_max": 16, "z_dim": 8, "w_dim": 8,
}  # fmt: skip


def test_stylegan3_pickle_keeps_names_and_resets_the_transform(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    from inference_server.networks.stylegan3 import StyleGAN3, StyleGAN3Config

    torch.manual_seed(0)
    network = StyleGAN3(StyleGAN3Config(**TINY_STYLEGAN3)).eval()  # type: ignore[arg-type]
    state = dict(network.state_dict())
    buffers = ("w_avg", "transform", "freqs", "phases", "magnitude_ema", "up_filter", "down_filter")
    z = torch.randn(1, 8)
    with torch.no_grad():
        expected = network(z)
    write_nvidia(tmp_path / "g.pkl", state | {"synthesis.input.transform": torch.ones(5, 3, 3)}, buffers)
    text = 'container = "nvidia-pickle"\n' + part("stylegan3", TINY_STYLEGAN3, root="G_ema", convert="stylegan3")
    import_file(tmp_path / "g.pkl", store, card(text))
    with torch.no_grad():
        assert torch.equal(load_network("tiny", store=store)(z), expected)
    name = next(n for n in state if n.endswith("up_filter"))
    write_nvidia(tmp_path / "g.pkl", state | {name: state[name] * 1.01}, buffers)
    with pytest.raises(ModelError, match="differs from the designed filter"):
        import_file(tmp_path / "g.pkl", store, card(text), replace=True)


# ---------------------------------------------------------------------------------------------------- the whole


def test_two_imports_of_one_file_have_the_same_hash(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    torch.save(state_of("stylegan2", TINY_STYLEGAN2), tmp_path / "tiny.pt")
    own = card('licences = ["s-lab-1-0"]\n' + part("stylegan2", TINY_STYLEGAN2))
    first = import_file(tmp_path / "tiny.pt", store, own, accept_licence=True).model
    (tmp_path / "tiny.pt").rename(tmp_path / "renamed.pt")
    again = import_file(tmp_path / "renamed.pt", store, own, accept_licence=True, replace=True).model
    assert first.sha256 == again.sha256


def test_importing_reports_progress_and_stopping_it_stores_nothing(
    tmp_path: Path, store: ModelStore, card: Cards
) -> None:
    torch.save(state_of("stylegan2", TINY_STYLEGAN2), tmp_path / "tiny.pt")
    steps = importing(tmp_path / "tiny.pt", store, card(part("stylegan2", TINY_STYLEGAN2)))
    seen: list[Step] = []
    for step in steps:
        seen.append(step)
        if step.what == "storing":
            steps.close()
    assert [step.share for step in seen] == sorted(step.share for step in seen)
    assert len(seen) >= 4
    assert leftovers(store) == []
