"""The README of the models package says what is so: its commands parse, its ids, sizes, codes and card are real."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

import inference_server.models as models
from host_bridge.errors import CODES
from inference_server.models.cards import official_card, read_cards
from inference_server.models.cli import add_parser

README = Path(models.__file__).with_name("README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    lines = re.findall(r"^ {4}faceplate (models .+)$", README, flags=re.M)
    return [re.split(r" {3,}", line)[0].replace("[ID ...]", "one two") for line in lines]


@pytest.mark.parametrize("command", commands())
def test_commands_parse_and_name_known_models(command: str) -> None:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(shlex.split(command))
    if args.models_command == "pull" and args.id != "ID":
        official_card(args.id)
    if args.models_command == "import":
        assert args.template is None or official_card(args.template).template
        assert args.template is not None or args.id is None or official_card(args.id)


def test_sizes_codes_and_names_are_real() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| `[\w/.]*?([\w.]+)` \| ([\d,]+) \|$", README, flags=re.M)
    assert len(rows) == 4
    for model_id, file, size in rows:
        card = official_card(model_id)
        assert (card.file, card.bytes) == (file, int(size.replace(",", "")))
        assert card.hub is not None
        assert card.sha256 is not None  # so that --id can be left out, as the text says
    assert len(commands()) > 12
    codes = set(re.findall(r"`(model\.\w+)`", README))
    assert len(codes) >= 7
    assert codes <= set(CODES)
    names = re.search(r"from inference_server\.models import (.+)", README)
    assert names is not None
    assert all(callable(getattr(models, name)) for name in names[1].split(", "))


def test_the_example_card_is_valid(tmp_path: Path) -> None:
    text = re.search(r'^ {4}id = "our-cartoon".*?^\n(?=\S)', README, flags=re.M | re.S)
    assert text is not None
    (tmp_path / "card.toml").write_text(re.sub(r"^ {4}", "", text[0], flags=re.M))
    (card,) = read_cards(tmp_path / "card.toml")
    assert card.parts["main"].network == "vtoonify"
    assert not card.noncommercial
