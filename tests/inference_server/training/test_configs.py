"""The configurations that ship: each states every number there is, with where it comes from, and none by mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from inference_server.training.config import split_config
from inference_server.training.recipes.vtoonify_settings import (
    EncoderSettings,
    TranslatorSettings,
    vtoonify_settings,
)
from inference_server.training.tables import read_toml, to_table

CONFIGS = Path(__file__).parents[3] / "inference_server" / "training" / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("vtoonify*.toml"))


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return out


def load(name: str) -> tuple[dict[str, Any], EncoderSettings | TranslatorSettings]:
    _, recipe = split_config(read_toml(CONFIGS / f"{name}.toml"))
    return recipe, vtoonify_settings(recipe)


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_stated_and_is_the_published_one(name: str) -> None:
    document = read_toml(CONFIGS / f"{name}.toml")
    config, recipe = split_config(document)
    settings = vtoonify_settings(recipe)
    stated = {key for key in flat(recipe) if not key.startswith("models.")}
    there_is = {key for key in flat(to_table(settings)) if not key.startswith("models.")}
    assert stated == there_is
    document.pop("recipe")
    assert flat(document).keys() == flat(to_table(config)).keys()
    chosen = {"id", "title", "backbone", "stage"}
    published = flat(to_table(type(settings)()))
    different = {
        k for k, v in flat(to_table(settings)).items() if published.get(k) != v and not k.startswith("models.")
    }
    assert different <= chosen | {"style.any_style", "style.any_degree", "style.colour_transfer"}
    assert settings.iterations == config.steps


@pytest.mark.parametrize("name", NAMES)
def test_every_line_says_where_its_number_comes_from(name: str) -> None:
    """By itself or in the line of its table's name."""
    covered = False
    for line in (CONFIGS / f"{name}.toml").read_text().splitlines():
        if line.startswith("["):
            covered = "#" in line
        elif re.match(r"\w+ = ", line) and not re.match(r"(stage|id|title|backbone|mask_range|mask_power) ", line):
            assert covered or "#" in line, line


def test_the_published_lengths_batches_and_averages() -> None:
    for name in NAMES:
        config, recipe = split_config(read_toml(CONFIGS / f"{name}.toml"))
        first = name.endswith("pretrain")
        assert (config.steps, config.batch, config.micro_batch) == ((30_000, 8, 1) if first else (2_000, 32, 4))
        assert config.ema.decay(0, config.batch) == pytest.approx(0.5 ** (32 / 10_000))
        assert recipe["rate"] == 1e-4
    kinds = {name: load(name)[1].style for name in NAMES}
    assert (kinds["vtoonify_d"].any_style, kinds["vtoonify_d"].any_degree) == (False, False)
    assert kinds["vtoonify_dsd"].any_style
    assert kinds["vtoonify_dsd"].any_degree
    assert not kinds["vtoonify_dsd"].colour_transfer
    assert kinds["vtoonify_dsdc"].colour_transfer
