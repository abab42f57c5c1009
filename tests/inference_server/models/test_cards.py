"""The cards that come with Faceplate, and cards of an artist's own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from math import prod
from pathlib import Path

import msgspec
import pytest
import tomli_w

from host_bridge.errors import ModelError
from inference_server.models.builders import layout
from inference_server.models.cards import (
    Card,
    TwoStageSpec,
    VToonifySpec,
    card_to_table,
    check_card,
    licences,
    official_card,
    official_cards,
    read_cards,
)
from tests.inference_server.models.conftest import TINY_STYLEGAN2, part

Cards = Callable[..., Card]
MANIFESTS = Path(__file__).parents[2] / "golden" / "data"

# Recorded names and shapes of the published networks, and the cards whose files hold them.
RECORDED = {
    "stylegan2_1024": ["stylegan2-ffhq", "stylegan2-ada-ffhq", "stylegan2-finetuned-cartoon"],
    "stylegan2_256": ["stylegan2-ffhq-256"],
    "dualstylegan_1024": ["dualstylegan-cartoon", "dualstylegan-pretrain"],
    "vtoonify_d": ["vtoonify-d-cartoon-s-d", "vtoonify-d-any"],
    "vtoonify_t": ["vtoonify-t-cartoon"],
    "psp_encoder": ["vtoonify-encoder", "dualstylegan-encoder-wplus", "psp-ffhq"],
    "e4e_encoder": ["e4e-ffhq"],
    "bisenet": ["bisenet-faceparsing", "bisenet-79999"],
    "raft_small": ["raft-small"],
    "raft_large": ["raft-things", "raft-sintel", "raft-kitti", "raft-chairs"],
    "hrnet_w18_98": ["hrnet-wflw"],
    "arcface_irse50": ["arcface-irse50"],
}


@pytest.mark.parametrize("manifest", RECORDED)
def test_cards_ask_for_the_names_and_shapes_of_the_published_networks(manifest: str) -> None:
    recorded = json.loads((MANIFESTS / f"{manifest}.json").read_text())["parameters"]
    wanted = {entry["name"]: tuple(entry["shape"]) for entry in recorded}
    for model_id in RECORDED[manifest]:
        main = official_card(model_id).parts["main"]
        entries = layout(main.network, main.config).entries
        assert {name: entry.shape for name, entry in entries.items()} == wanted


@pytest.mark.parametrize("trunk", ["vgg", "alex"])
def test_lpips_cards_ask_for_the_published_pieces(trunk: str) -> None:
    recorded = json.loads((MANIFESTS / f"lpips_{trunk}.json").read_text())["parameters"]
    heads = {e["name"]: tuple(e["shape"]) for e in recorded if e["name"].startswith("lin") and e["name"][3].isdigit()}
    body = {
        "features." + e["name"].split(".", 2)[2]: tuple(e["shape"]) for e in recorded if e["name"].startswith("net.")
    }
    backbone = {"vgg": "torchvision-vgg16", "alex": "torchvision-alexnet"}[trunk]
    for model_id, wanted in ((f"lpips-{trunk}", heads), (backbone, body)):
        main = official_card(model_id).parts["main"]
        assert {k: v.shape for k, v in layout(main.network, main.config).entries.items()} == wanted


@pytest.mark.parametrize(
    ("model_id", "values", "buffers"),
    [
        ("stylegan3-r-ffhq-1024", 15_093_151, 5_600),
        ("stylegan3-t-ffhq-1024", 22_313_167, 2_480),
        ("stylegan3-r-ffhqu-256", 15_779_565, 5_576),
        ("stylegan3-t-ffhqu-256", 23_320_443, 2_456),
        ("hrnet-300w", 9_654_398, None),
    ],
)
def test_networks_without_a_recording_have_the_published_counts(
    model_id: str, values: int, buffers: int | None
) -> None:
    main = official_card(model_id).parts["main"]
    entries = layout(main.network, main.config).entries
    total = sum(prod(e.shape) for e in entries.values())
    if buffers is None:  # batch norms: two running statistics and a counter beside every weight and bias
        total -= sum(prod(e.shape) for n, e in entries.items() if "running" in n or "num_batches" in n)
    assert total == values + (buffers or 0)


def test_every_card_says_who_where_and_under_which_terms() -> None:
    cards = official_cards()
    assert len(cards) > 100
    for card in cards:
        assert all((card.authors, card.licences, card.purpose, card.title, card.sources)), card.id
        assert all(s.url.startswith(("https://", "http://dlib.net")) for s in card.sources), card.id
        if card.hub is not None:
            assert card.hub.path.endswith(card.file), card.id
        assert msgspec.convert(card_to_table(card), Card) == card
    files = {(card.file, card.sha256) for card in cards if card.sha256}
    assert len(files) == sum(card.sha256 is not None for card in cards)


def test_weights_that_derive_from_ffhq_are_non_commercial() -> None:
    free = {card.id for card in official_cards() if not card.noncommercial}
    networks = {p.network for i in free for p in official_card(i).parts.values()}
    assert networks == {"raft", "hrnet", "lpips-heads", "lpips-trunk", "vgg19"}
    assert "VToonify" not in " ".join(official_card(i).title for i in free)
    assert official_card("vtoonify-d-cartoon-s-d").licence.endswith("(non-commercial)")
    assert not any(terms.noncommercial for terms in (licences()["mit"], licences()["bsd-3-clause"]))


def test_listing_cards_loads_no_torch() -> None:
    code = (
        "import sys; from inference_server.models.cards import official_cards; "
        "from inference_server.models import ModelStore; from inference_server.models.cli import add_arguments; "
        "ModelStore().models(); assert official_cards(); "
        "assert not {'torch', 'numpy', 'safetensors', 'huggingface_hub'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('licences = ["nonsense"]\n' + part("bisenet", {}), "licence 'nonsense' is none of"),
        (part("os.system", {}), "network 'os.system' is none of"),
        ("", "says why not_imported"),
        (part("bisenet", {}) + "[tensors.a]\nshapes = [[0]]", "positive sizes"),
        ('sha256 = "ABC"\n' + part("bisenet", {}), "64 lower-case"),
        ('container = "npy-dict"\n' + part("bisenet", {}), "go together"),
        ('container = "npy"\n' + part("bisenet", {}), "no network"),
        (part("bisenet", {}, convert="stylegan3"), "nvidia-pickle"),
        (part("bisenet", {}, name="tensors"), "part name"),
        ('objects = ["os.system"]\n' + part("bisenet", {}), "Invalid enum value 'os.system'"),
        ("colour = 3\n" + part("bisenet", {}), "unknown field `colour`"),
        (part("bisenet", {}) + "[direction]\nlayers = [8, 4]", "[first, stop)"),
        (part("bisenet", {}) + "[direction]\nscale = 0.0", "means nothing"),
        (part("bisenet", {}) + "[direction]\ndisplay = [1.0, 1.0]", "means nothing"),
        ("format = 2\n" + part("bisenet", {}), "newer than"),
        ("format = [", "not TOML"),
    ],
)
def test_wrong_cards_are_refused(card: Cards, more: str, says: str) -> None:
    with pytest.raises(ModelError) as caught:
        card(more)
    assert caught.value.code == "model.card"
    assert says in str(caught.value)


def test_a_card_of_ones_own_may_bring_its_licence_and_a_family(tmp_path: Path, card: Cards) -> None:
    terms = '{ id = "mine", name = "Mine", noncommercial = true, summary = "Ask me." }'
    own = card(f"licences = [{terms}]\n" + part("stylegan2", TINY_STYLEGAN2))
    assert own.noncommercial
    assert own.licence == "Mine (non-commercial)"
    with pytest.raises(ModelError, match="plain file name"):
        check_card(msgspec.structs.replace(own, file="a/b.pt"), "here")
    family = tmp_path / "family.toml"
    family.write_text(
        '[shared]\ntitle = "t"\npurpose = "p"\nauthors = ["a"]\nlicences = ["mit"]\nfile = "x.npy"\n'
        'container = "npy"\n[shared.tensors.d]\nshapes = [[3]]\n[[model]]\nid = "one"\n'
        '[[model]]\nid = "two"\n[model.tensors.d]\nshapes = [[4]]\n'
    )
    assert [c.tensors["d"].shapes for c in read_cards(family)] == [((3,),), ((4,),)]
    with pytest.raises(ModelError, match="cannot be read"):
        read_cards(tmp_path / "none.toml")


def test_unknown_ids_offer_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'raft-things'"):
        official_card("raft-thing")


def test_a_configuration_the_network_does_not_take_is_the_cards_fault(card: Cards) -> None:
    own = card(part("stylegan2", {"size": 17}))
    with pytest.raises(ModelError, match="power of two") as caught:
        layout("stylegan2", own.parts["main"].config)
    assert caught.value.code == "model.card"
    with pytest.raises(ModelError, match="unexpected keyword"):
        layout("stylegan2", {"size": 16, "colour": 1})


def test_variants_of_vtoonify_say_style_and_degree_also_where_they_are_0(tmp_path: Path) -> None:
    """`_s000_d0.5` is style number 0, not any style; and a card written to disk still says so."""
    published = [card for card in official_cards() if card.id.startswith("vtoonify-d-") and not card.template]
    for card in published:
        assert card.vtoonify is not None, card.id
        assert card.vtoonify.codes == f"vtoonify-codes-{card.id.split('-')[2]}"
        style = None if card.vtoonify.style is None else f"_s{card.vtoonify.style:03d}"
        assert (style or "_s_") in card.file
        assert ("_d0.5" in card.file) == (card.vtoonify.degree == 0.5)
        assert card.file.endswith("_c.pt") == card.vtoonify.color_transfer
        (path := tmp_path / f"{card.id}.toml").write_text(tomli_w.dumps(card_to_table(card)), encoding="utf-8")
        assert read_cards(path)[0].vtoonify == card.vtoonify
    still = msgspec.structs.replace(published[0], vtoonify=VToonifySpec(codes="c", style=0, degree=0.0))
    (path := tmp_path / "still.toml").write_text(tomli_w.dumps(card_to_table(still)), encoding="utf-8")
    assert read_cards(path)[0].vtoonify == still.vtoonify


def test_a_two_stage_model_says_what_it_saw_also_where_that_is_0(tmp_path: Path) -> None:
    """Size 0 is the plate's own; it must not become the default on its way through a file."""
    whole = TwoStageSpec(styles=("ink",), keyframe=True, crop="full", size=0.0, padding=(0.0, 0.0, 0.0, 0.0))
    own = msgspec.structs.replace(official_card("raft-small"), two_stage=whole)
    (path := tmp_path / "own.toml").write_text(tomli_w.dumps(card_to_table(own)), encoding="utf-8")
    assert read_cards(path)[0].two_stage == whole
