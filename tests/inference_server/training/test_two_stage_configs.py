"""The configurations of the two-stage translator: every number stated, and where it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from inference_server.networks.two_stage import REFINER_WIDTHS, TRANSLATOR_WIDTHS
from inference_server.train_commands.running import CONFIGS
from inference_server.training.config import split_config
from inference_server.training.recipes.two_stage import TranslatorSettings
from inference_server.training.recipes.two_stage_refiner import RefinerSettings
from inference_server.training.tables import from_table, read_toml, to_table

KINDS: dict[str, type[Any]] = {
    "two_stage_translator": TranslatorSettings,
    "two_stage_translator_cpu": TranslatorSettings,
    "two_stage_refiner": RefinerSettings,
    "two_stage_refiner_cpu": RefinerSettings,
}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return {k: v for k, v in out.items() if not k.startswith(("models.", "recipe."))}


@pytest.mark.parametrize("name", KINDS)
def test_every_number_is_stated(name: str) -> None:
    document = read_toml(CONFIGS / f"{name}.toml")
    config, recipe = split_config(document)
    settings = from_table(KINDS[name], recipe, "recipe.")
    assert flat(recipe).keys() == flat(to_table(settings)).keys()
    assert flat(document).keys() == flat(to_table(config)).keys()
    assert config.piece >= 4  # batch norm
    assert config.steps / 2 < settings.settle_norms < config.steps
    assert config.schedule.factor(settings.settle_norms) < 0.5  # settled norms want small steps


@pytest.mark.parametrize("name", KINDS)
def test_every_line_says_where_its_number_comes_from(name: str) -> None:
    covered = False
    for line in (CONFIGS / f"{name}.toml").read_text().splitlines():
        if line.startswith("["):
            covered = "#" in line
        elif re.match(r"\w+ = ", line) and not re.match(r"(id|title) ", line):
            assert covered or "#" in line, line


def test_what_is_published_or_by_analogy() -> None:
    """The losses and the networks' size are the paper's; the numbers beside them those of work like it."""
    t, r = TranslatorSettings(), RefinerSettings()
    assert (t.weights.l1, t.weights.adversarial, t.band, t.rate, t.betas) == (4.0, 0.5, 0.2, 2e-4, (0.5, 0.999))
    assert t.widths == r.translator_widths == TRANSLATOR_WIDTHS == (32, 64, 128, 160, 432)
    assert r.widths == REFINER_WIDTHS == (24, 48, 96, 128)
    assert (r.background, r.source_share, r.weights.temporal, 5 <= r.length <= 8) == ("source", 1.0, 0.1, True)
