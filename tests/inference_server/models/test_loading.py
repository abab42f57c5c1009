"""From a stored model to a network in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from host_bridge.errors import ModelError
from inference_server.models import loading
from inference_server.models.builders import build
from inference_server.models.cards import Card
from inference_server.models.importer import import_file
from inference_server.models.store import ModelStore
from tests.inference_server.models.conftest import TINY_STYLEGAN2, part, state_of

Cards = Callable[..., Card]


@pytest.fixture
def tiny(tmp_path: Path, store: ModelStore, card: Cards) -> ModelStore:
    torch.save(state_of("stylegan2", TINY_STYLEGAN2), tmp_path / "tiny.pt")
    import_file(tmp_path / "tiny.pt", store, card(part("stylegan2", TINY_STYLEGAN2)))
    return store


def test_weights_are_allocated_once_and_on_the_device(tiny: ModelStore) -> None:
    network = loading.load_network("tiny", store=tiny)
    values = [*network.parameters(), *network.buffers()]
    assert {value.device.type for value in values} == {"cpu"}
    assert {value.dtype for value in values} == {torch.float32}


def test_weights_that_are_stored_in_half_precision_come_as_float32(tiny: ModelStore) -> None:
    path = tiny.get("tiny").path
    save_file({name: value.half() for name, value in load_file(path).items()}, path)
    state = loading.load_network("tiny", store=tiny).state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    assert all(torch.equal(state[name.partition("/")[2]], value.float()) for name, value in load_file(path).items())


def test_what_a_network_computes_when_it_is_built_is_computed(
    tiny: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer that no checkpoint holds, and a plain tensor, would stay without values if they were not rebuilt."""
    original = build

    def with_more(network: str, config: object) -> nn.Module:
        built = original(network, config)  # type: ignore[arg-type]
        built.register_buffer("table", torch.arange(4.0), persistent=False)
        object.__setattr__(built, "plain", torch.arange(3.0))
        return built

    monkeypatch.setattr(loading, "build", with_more)
    network = loading.load_network("tiny", store=tiny)
    assert network.table.tolist() == [0, 1, 2, 3]  # type: ignore[operator]
    assert network.plain.tolist() == [0, 1, 2]  # type: ignore[operator]


def test_a_network_that_changed_since_says_import_again(tiny: ModelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    original = build

    def changed(network: str, config: object) -> nn.Module:
        built = original(network, config)  # type: ignore[arg-type]
        built.register_parameter("new_in_this_version", nn.Parameter(torch.ones(1)))
        return built

    monkeypatch.setattr(loading, "build", changed)
    with pytest.raises(ModelError, match="new_in_this_version") as caught:
        loading.load_network("tiny", store=tiny)
    assert caught.value.code == "model.stored"
    assert "--replace" in caught.value.remedy


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_weights_go_to_the_gpu(tiny: ModelStore) -> None:
    network = loading.load_network("tiny", "cuda", store=tiny)
    assert {value.device.type for value in [*network.parameters(), *network.buffers()]} == {"cuda"}


def test_parts_and_codes_that_are_not_there(tiny: ModelStore) -> None:
    with pytest.raises(ModelError, match="holds no network that stands alone under 'raw'"):
        loading.load_network("tiny", part="raw", store=tiny)
    with pytest.raises(ModelError, match="holds no style codes"):
        loading.load_style_codes("tiny", store=tiny)
    with pytest.raises(ModelError, match="'lpips-vgg'"):
        loading.load_lpips("vgg", store=tiny)
