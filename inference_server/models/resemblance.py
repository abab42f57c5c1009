"""Decides which known model a file's entries resemble most, for the error that a wrong file deserves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import msgspec
from torch import Tensor

from inference_server.models.builders import layout
from inference_server.models.cards import Card, official_cards

_LEAST = 0.5  # share of names and shapes below which nothing is said
_PREFIXES = ("", "module.", "encoder.", "decoder.")


@dataclass(frozen=True)
class Likeness:
    """A card one of whose networks has `matched` of `total` names and shapes in the file's entry `root`."""

    card: Card
    part: str
    root: str
    prefix: str
    matched: int
    total: int

    @property
    def share(self) -> float:
        return self.matched / self.total


def _state_dicts(contents: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, tuple[int, ...]]]]:
    """Every dictionary of tensors down to three levels, with the shapes in it."""
    if not isinstance(contents, Mapping) or depth > 2:
        return
    shapes = {str(key): tuple(value.shape) for key, value in contents.items() if isinstance(value, Tensor)}
    if shapes:
        yield path, shapes
    for key, value in contents.items():
        yield from _state_dicts(value, f"{path}/{key}" if path else str(key), depth + 1)


@lru_cache(maxsize=128)
def _shapes(network: str, config: bytes) -> Mapping[str, tuple[int, ...]]:
    entries = layout(network, msgspec.json.decode(config)).entries
    return MappingProxyType({name: entry.shape for name, entry in entries.items()})


def likenesses(contents: Any, cards: list[Card] | None = None) -> list[Likeness]:
    """Cards whose networks share names and shapes with the content, best first; those alike in all are all listed."""
    found = list(_state_dicts(contents))
    if not found:
        return []
    out: list[Likeness] = []
    for card in official_cards() if cards is None else cards:
        for name, part in card.parts.items():
            wanted = _shapes(part.network, msgspec.json.encode(part.config, order="sorted"))
            best = None
            for root, shapes in found:
                for prefix in dict.fromkeys((part.prefix, *_PREFIXES)):
                    own = {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}
                    matched = sum(own.get(entry) == shape for entry, shape in wanted.items())
                    likeness = Likeness(card, name, root, prefix, matched, max(len(wanted), len(own)))
                    if matched and (best is None or likeness.share > best.share):
                        best = likeness
            if best is not None:
                out.append(best)
    return sorted(out, key=lambda likeness: likeness.share, reverse=True)


def resemblance(contents: Any) -> str:
    """A phrase that names the nearest model, or an empty text when nothing is near."""
    near = [likeness for likeness in likenesses(contents) if likeness.share >= _LEAST]
    if not near:
        return ""
    best = near[0]
    others = {likeness.card.id for likeness in near if likeness.share == best.share} - {best.card.id}
    more = f" (as have {', '.join(sorted(others)[:4])})" if others else ""
    where = f"its entry {best.root!r}" if best.root else "it"
    return f"{where} has {best.matched} of {best.total} names and shapes of {best.card.id!r}{more}"
