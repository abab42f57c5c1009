"""What the controls show of each network, and what is said where something is not imported."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from host_bridge.effects import check_values
from host_bridge.errors import EffectError, ModelError
from inference_server.effects.base import Resources
from inference_server.effects.vtoonify.descriptor import describe
from inference_server.effects.vtoonify.effect import VToonifyEffect
from inference_server.effects.vtoonify.variants import Imported, plain_names, variant_spec
from inference_server.models.cards import official_card
from inference_server.models.importer import import_file
from inference_server.models.store import Folder, ModelStore, Stored, StoredModel
from tests.inference_server.effects.vtoonify.conftest import T, add_vtoonify, network


def test_controls_follow_what_each_network_can_do(models: ModelStore) -> None:
    found = describe(models)
    by_name = {p.name: p for p in found.params}
    assert by_name["model"].choices == ("d-any", "d-keep", "d-one", "t")
    assert "Small d-keep" in by_name["model"].hint
    styles = by_name["style"]
    assert styles.choices_at({"model": "d-any"}) == ("Ann_01", "Bob_02", "Cleo_03")
    assert styles.choices_at({"model": "d-keep"})[0] == "Bob_02"  # its card's first_style
    assert styles.choices_at({"model": "d-one"}) == ("Cleo_03",)
    acts = {
        name: tuple(m for m in ("d-any", "d-keep", "d-one", "t") if by_name[name].acts({"model": m}))
        for name in ("style", "degree", "color", "color_transfer")
    }
    assert acts == {
        "style": ("d-any", "d-keep", "d-one"),
        "degree": ("d-any", "d-keep"),
        "color": ("d-any",),
        "color_transfer": ("d-any",),
    }
    assert by_name["degree"].animates
    assert by_name["color"].animates
    assert not any(by_name[f"padding_{side}"].animates for side in ("left", "right", "top", "bottom"))
    assert all(by_name[f"padding_{side}"].default == 200 for side in ("left", "right", "top", "bottom"))
    assert check_values(found, {"model": "d-one"}).at(0)["style"] == "Cleo_03"


def test_without_models_there_are_controls_and_an_error_that_says_what_to_import(tmp_path: Path) -> None:
    empty = ModelStore((Folder(tmp_path, True),))
    found = describe(empty)
    assert found.param("model").choices == ("none",)
    effect = VToonifyEffect(Resources(models=empty))
    with pytest.raises(EffectError, match="no VToonify network is imported") as caught:
        effect.shot_key(check_values(found, {}))
    assert caught.value.code == "effect.needs_model"
    assert "faceplate models pull vtoonify-d-cartoon-s-d" in caught.value.remedy


@pytest.mark.parametrize(
    ("facts", "missing"), [({"codes": "vtoonify-codes-cartoon"}, "vtoonify-codes-cartoon"), (None, "vtoonify-encoder")]
)
def test_what_is_needed_besides_is_named(tmp_path: Path, facts: dict[str, Any] | None, missing: str) -> None:
    store = ModelStore((Folder(tmp_path / "m", True),))
    if facts is None:
        add_vtoonify(store, tmp_path, "t", T)
    else:
        tiny = {**T, "backbone": "dualstylegan"}
        add_vtoonify(store, tmp_path, "d", tiny, **facts)
    effect = VToonifyEffect(Resources(models=store))
    with pytest.raises(EffectError, match=missing) as caught:
        effect.shot_key(check_values(effect.descriptor, {}))
    assert caught.value.code == "effect.needs_model"
    assert f"faceplate models pull {missing}" in caught.value.remedy


def test_a_model_that_is_imported_later_is_seen(tmp_path: Path) -> None:
    store = ModelStore((Folder(tmp_path / "m", True),))
    effect = VToonifyEffect(Resources(models=store))
    assert effect.descriptor.param("model").choices == ("none",)
    add_vtoonify(store, tmp_path, "t", T)
    assert effect.descriptor.param("model").choices == ("t",)
    assert effect.descriptor is effect.descriptor  # looked at again only when a folder changed


def test_the_checkpoint_of_another_variant_is_refused_at_import(tmp_path: Path) -> None:
    """A VToonify-T file under the card of a VToonify-D."""
    path = tmp_path / "vtoonify_s_d.pt"
    torch.save({"g_ema": network("vtoonify", T, 1).state_dict()}, path)
    card = msgspec.structs.replace(official_card("vtoonify-d-cartoon-s-d"), bytes=None, sha256=None)
    with pytest.raises(ModelError) as caught:
        import_file(path, ModelStore((Folder(tmp_path / "m", True),)), card)
    assert caught.value.code in ("model.mismatch", "model.wrong_file", "model.licence")


@pytest.mark.parametrize(
    ("model_id", "file", "style", "degree", "color", "codes"),
    [
        ("my-cartoon-100", "vtoonify_s100_d0.7.pt", 100, 0.7, False, "vtoonify-codes-cartoon"),
        ("arcane-new", "vtoonify_s_d.pt", None, None, False, "vtoonify-codes-arcane"),
        ("comic", "vtoonify_s028_d_c.pt", 28, None, True, "vtoonify-codes-comic"),
        ("something", "vtoonify_s003_d0.pt", 3, 0.0, False, ""),
    ],
)
def test_a_file_without_a_card_of_its_own_says_by_its_name_what_it_is(
    stored_as: Callable[[str, str], StoredModel],
    model_id: str,
    file: str,
    style: int | None,
    degree: float | None,
    color: bool,
    codes: str,
) -> None:
    spec = variant_spec(stored_as(model_id, file))
    assert (spec.style, spec.degree, spec.color_transfer, spec.codes) == (style, degree, color, codes)


@pytest.fixture
def stored_as(tmp_path: Path) -> Callable[[str, str], StoredModel]:
    def make(model_id: str, file: str) -> StoredModel:
        card = msgspec.structs.replace(official_card("vtoonify-d-any"), id=model_id)
        return StoredModel(card, Stored("x", 0, "0" * 64, file, "0" * 64), Folder(tmp_path))

    return make


def test_a_style_number_beyond_the_codes_is_refused(tmp_path: Path, models: ModelStore) -> None:
    more = ModelStore((Folder(tmp_path / "m", True),))
    add_vtoonify(more, tmp_path, "d-nine", {**T, "backbone": "dualstylegan"}, style=9)
    effect = VToonifyEffect(Resources(models=ModelStore((*more.folders, Folder(models.folders[0].path)))))
    with pytest.raises(EffectError, match="style number 9, vtoonify-codes-small has 3"):
        effect.shot_key(check_values(effect.descriptor, {"model": "d-nine"}))


def test_names_of_styles_lose_their_suffix_only_where_they_stay_apart() -> None:
    assert plain_names(("a.jpg", "b.png")) == ["a", "b"]
    assert plain_names(("a.jpg", "a.png")) == ["a.jpg", "a.png"]


def test_describing_needs_no_torch(models: ModelStore) -> None:
    code = (
        "import sys; from pathlib import Path; from inference_server.models.store import Folder, ModelStore\n"
        "from inference_server.effects.registry import descriptor\n"
        f"d = descriptor('vtoonify', ModelStore((Folder(Path({str(models.folders[0].path)!r})),)))\n"
        "assert len(d.param('model').choices) == 4; sys.exit(bool({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_collection_of_every_published_model_is_known() -> None:
    found = Imported({})
    assert found.variants == {}
    assert found.parser is None
    assert found.flows == ()
