"""A trained model goes into the model store by the card that training wrote, and comes out as the same network."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from inference_server.models.cards import read_cards
from inference_server.models.importer import import_file
from inference_server.models.loading import load_network
from inference_server.models.store import Folder, ModelStore
from inference_server.networks.stylegan3 import StyleGAN3, StyleGAN3Config
from inference_server.training.card import check_facts, export
from inference_server.training.checkpoint import Snapshot
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import CardFacts, CardPart

SIZES = StyleGAN3Config(32, 1, True, 512, 16, z_dim=8, w_dim=8, num_layers=6)

FACTS = CardFacts(
    id="my-portrait",
    title='A "quoted" title, with \\ and é',
    purpose="Tests",
    authors=("An artist",),
    licences=("apache-2-0", {"id": "own", "name": "Own work", "noncommercial": False, "summary": "Ours."}),
    parts={"main": CardPart("generator", "stylegan3", asdict(SIZES))},
    notes="From two paintings.",
)


def snapshot(network: StyleGAN3, kind: str) -> Snapshot:
    tensors = {f"{kind}/generator/{name}": value for name, value in network.state_dict().items()}
    if kind == "ema":
        tensors |= {f"module/generator/{name}": value + 1 for name, value in network.state_dict().items()}
    facts = {"recipe": "tiny", "config": {"seed": 3}, "best": {"step": -1, "score": None}}
    return Snapshot(40, tensors, facts)


@pytest.mark.parametrize("kind", ["module", "ema"])
def test_a_trained_model_is_imported_and_loaded(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    network = StyleGAN3(SIZES).eval()
    weights, card = export(snapshot(network, kind), FACTS, 100, tmp_path / "run")
    (read,) = read_cards(card)
    assert read.title == FACTS.title
    assert [licence.id for licence in read.licences] == ["apache-2-0", "own"]
    assert read.notes == "Trained by recipe tiny, step 40 of 100, seed 3. From two paintings."
    store = ModelStore((Folder(tmp_path / "store", True),))
    import_file(weights, store, read)
    loaded = load_network("my-portrait", store=store)
    z = torch.randn(1, 8)
    with torch.inference_mode():
        assert torch.equal(loaded(z), network(z))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"id": "My Portrait"}, "lower-case"),
        ({"licences": ()}, "licences must name"),
        ({"parts": {}}, "exports nothing"),
        ({"parts": {"main": CardPart("critic", "stylegan3")}}, "none of the trained ones"),
    ],
)
def test_a_card_that_cannot_be_written_is_refused_before_training(change: dict[str, object], says: str) -> None:
    check_facts(FACTS, {"generator": 1})
    with pytest.raises(TrainingError, match=says):
        check_facts(replace(FACTS, **change), {"generator": 1})  # type: ignore[arg-type]
