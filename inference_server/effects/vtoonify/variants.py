"""Which VToonify networks are imported, and what each of them can do. No torch: the gateway describes effects.

What a network was trained for is on its card (`[vtoonify]`: style codes, style, degree, colour transfer). A file that
was imported from a template says it by its own name, as its authors name their files (`vtoonify_s026_d0.5.pt`), and
its collection is the one that its id names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from host_bridge.errors import EffectError
from inference_server.effects.common import NONE
from inference_server.effects.library import face_parser, needed_model
from inference_server.models.cards import Card, VToonifySpec, official_cards
from inference_server.models.store import ModelStore, StoredModel

ENCODER = "vtoonify-encoder"
CODES = "vtoonify-codes-"


@dataclass(frozen=True)
class Variant:
    """An imported VToonify and what it takes.

    backbone    "dualstylegan" (D) or "toonify" (T)
    style       number of its only style, None: any of the collection
    degree      its only style degree, None: 0 to 1
    styles      names of the styles that it can be given; empty for T, and where the style codes are not imported
    """

    model: StoredModel
    backbone: str
    codes: str = ""
    style: int | None = None
    degree: float | None = None
    color_transfer: bool = False
    styles: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return self.model.id

    @property
    def dual(self) -> bool:
        return self.backbone == "dualstylegan"

    @property
    def any_degree(self) -> bool:
        return self.dual and self.degree is None

    @property
    def any_style(self) -> bool:
        return self.dual and self.style is None


@dataclass(frozen=True)
class Imported:
    """What the store holds for this effect, at one moment."""

    models: Mapping[str, StoredModel]

    @classmethod
    def of(cls, store: ModelStore) -> Imported:
        return cls(store.models())

    @cached_property
    def variants(self) -> dict[str, Variant]:
        """The VToonify networks by id."""
        found = {}
        for model_id, model in self.models.items():
            part = model.card.parts.get("main")
            if part is not None and part.network == "vtoonify":
                found[model_id] = self._variant(model, str(part.config.get("backbone", "dualstylegan")))
        return found

    @property
    def flows(self) -> tuple[str, ...]:
        """The RAFT networks, those recommended first."""
        raft = [
            i for i, m in self.models.items() if (p := m.card.parts.get("main")) is not None and p.network == "raft"
        ]
        return tuple(sorted(raft, key=lambda i: (i != "raft-things", i)))

    @property
    def parser(self) -> StoredModel | None:
        """The face parser, if there is one."""
        return face_parser(self.models)

    def variant(self, model_id: str) -> Variant:
        """EffectError `effect.needs_model` for an id that is no imported VToonify."""
        if model_id in self.variants:
            return self.variants[model_id]
        raise EffectError(
            "effect.needs_model",
            "no VToonify network is imported" if model_id == NONE else f"{model_id!r} is no imported VToonify network",
            value=model_id,
            remedy="Import one: `faceplate models list` names them, `faceplate models pull vtoonify-d-cartoon-s-d` "
            "gets a cartoon one with its licence shown, `faceplate models import FILE` takes a file you have.",
        )

    def needed(self, model_id: str, why: str) -> StoredModel:
        """EffectError `effect.needs_model` that says how to get it where it is not imported."""
        return needed_model(self.models, model_id, why, f"Get it: `faceplate models pull {model_id}`")

    def _variant(self, model: StoredModel, backbone: str) -> Variant:
        if backbone != "dualstylegan":
            return Variant(model, backbone)
        spec = variant_spec(model)
        codes = self.models.get(spec.codes)
        names = tuple(plain_names(codes.stored.code_names)) if codes is not None else ()
        if spec.style is not None:
            names = names[spec.style : spec.style + 1]
        elif spec.first_style < len(names):
            first = names[spec.first_style]
            names = (first, *(name for name in names if name != first))
        return Variant(model, backbone, spec.codes, spec.style, spec.degree, spec.color_transfer, names)


def plain_names(names: tuple[str, ...]) -> list[str]:
    """Style codes are named after picture files; their suffixes go where that leaves the names different."""
    short = [Path(name).stem for name in names]
    return short if len(set(short)) == len(short) else list(names)


def variant_spec(model: StoredModel) -> VToonifySpec:
    """What a VToonify-D was trained for, from its card, the published card of its id, or its file's name."""
    official = {card.id: card for card in official_cards()}
    published = official.get(model.id)
    for card in (model.card, published):
        if isinstance(card, Card) and card.vtoonify is not None:
            return card.vtoonify
    name = Path(model.stored.source_file).stem
    style, degree = re.search(r"_s(\d+)(?=_|$)", name), re.search(r"_d(\d+(?:\.\d+)?)(?=_|$)", name)
    words = model.id.split("-")
    collections = [i for i in official if i.startswith(CODES) and i.removeprefix(CODES) in words]
    return VToonifySpec(
        codes=collections[0] if collections else "",
        style=int(style[1]) if style else None,
        degree=float(degree[1]) if degree else None,
        color_transfer=name.endswith("_c"),
    )
