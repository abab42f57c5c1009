"""A code transformer that an installed package registers is an edit like any other."""

from __future__ import annotations

from pathlib import Path

from host_bridge.effects import check_values
from inference_server.effects.base import Resources
from inference_server.effects.style_portrait.effect import StylePortrait
from inference_server.models.store import ModelStore
from tests.inference_server.directions.test_transformers import installed


def test_what_the_pixels_depend_on_names_it_by_its_digest(models: ModelStore, tmp_path: Path) -> None:
    with installed(tmp_path / "site", "mirror = our_edits_of_test:MIRROR"):
        effect = StylePortrait(Resources(models=models))
        values = check_values(effect.descriptor, {"model": "gan2", "adapt": False}, [("mirror", 0.5), ("age", 1.0)])
        used = effect.models(values)
    assert used["mirror"] == "1 ours"
    assert "direction-age" in used
    assert "" not in used
