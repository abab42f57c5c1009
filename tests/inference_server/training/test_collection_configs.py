"""The configurations of a collection's stages: every number stated, where it comes from, and the published one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from inference_server.train_commands.running import CONFIGS
from inference_server.training.config import split_config
from inference_server.training.recipes.destylize import DestylizeSettings
from inference_server.training.recipes.dualstylegan import PretrainSettings, TransferSettings
from inference_server.training.recipes.refine_codes import RefineSettings
from inference_server.training.recipes.stylegan_finetune import FinetuneSettings
from inference_server.training.tables import from_table, read_toml, to_table

TRAINED: dict[str, type[Any]] = {
    "stylegan_finetune": FinetuneSettings,
    "dualstylegan_pretrain": PretrainSettings,
    "dualstylegan": TransferSettings,
}
BY_PICTURE: dict[str, type[Any]] = {"destylize": DestylizeSettings, "refine_codes": RefineSettings}
KINDS = {**TRAINED, **BY_PICTURE}
CHOSEN = {"pictures", "codes", "id", "title", "stage"}


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return {k: v for k, v in out.items() if not k.startswith("models.")}


@pytest.mark.parametrize("name", KINDS)
def test_every_number_is_stated_and_is_the_default(name: str) -> None:
    recipe = read_toml(CONFIGS / f"{name}.toml")["recipe"]
    settings = flat(to_table(from_table(KINDS[name], recipe, "recipe.")))
    assert flat(recipe).keys() == settings.keys()
    defaults = flat(to_table(KINDS[name]()))
    different = {key for key, value in settings.items() if defaults[key] != value} - CHOSEN
    assert different <= ({"regularisation"} if name == "dualstylegan" else set())  # cartoon's


@pytest.mark.parametrize("name", KINDS)
def test_every_line_says_where_its_number_comes_from(name: str) -> None:
    covered = False
    for line in (CONFIGS / f"{name}.toml").read_text().splitlines():
        if line.startswith("["):
            covered = "#" in line
        elif re.match(r"\w+ = ", line) and not re.match(r"(id|title|stage) ", line):
            assert covered or "#" in line, line


def test_published_lengths_batches_and_averages() -> None:
    published = {
        "stylegan_finetune": (600, 32, 4),
        "dualstylegan_pretrain": (3600, 4, 4),
        "dualstylegan": (1400, 32, 4),
    }
    for name, numbers in published.items():
        document = read_toml(CONFIGS / f"{name}.toml")
        config, _ = split_config(document)
        document.pop("recipe")
        assert flat(document).keys() == flat(to_table(config)).keys()
        assert (config.steps, config.batch, config.micro_batch) == numbers
        assert config.ema.decay(0, config.batch) == pytest.approx(0.5 ** (32 / 10_000))
        assert config.schedule.factor(config.steps - 1) == 1.0
    for name in BY_PICTURE:
        assert set(read_toml(CONFIGS / f"{name}.toml")) == {"recipe"}


def test_published_numbers() -> None:
    """Those of the recipe, typed in anew."""
    gan = TransferSettings().gan
    assert (gan.rate, gan.r1, gan.r1_every, gan.path, gan.path_every, gan.path_share) == (0.002, 10, 16, 2, 4, 0.5)
    assert (gan.mixing, gan.ada_target, gan.ada_length) == (0.9, 0.6, 500_000)
    d = DestylizeSettings()
    assert (d.steps, d.rate, d.rise, d.fall, d.identity, d.noise) == (300, 0.1, 0.05, 0.25, 0.1, 1e5)
    assert (d.keep_from, d.truncation, d.compare_at) == (8, 0.7, 256)
    t = TransferSettings()
    assert (t.adversarial, t.style, t.contextual, t.band, t.identity) == (1.0, 0.25, 0.25, 0.2, 1.0)
    assert (t.perceptual, t.free_from, t.jitter) == ({"relu2_1": 0.5, "relu3_1": 1.0}, 8, 0.1)
    assert (t.regularisation, t.compare_at) == (0.01, 256)
    r = RefineSettings()
    assert (r.steps, r.structure_rate, r.colour_rate, r.noise_rate, r.noise) == (100, 0.005, 0.01, 0.1, 1e5)
