"""Which two-stage translators the store holds, and what each can do. No torch: the gateway describes effects.

A model is a two-stage one when it has a translator; its card's `[two_stage]` table names its styles and says what of a
plate it saw in training. Those that learned the painted frames of a shot belong to `keyframe`, all others to
`two_stage`. Models that come with Faceplate are offered first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from host_bridge.errors import EffectError
from inference_server.effects.common import NONE
from inference_server.models.cards import Card, TwoStageSpec
from inference_server.models.store import ModelStore, StoredModel

TRANSLATOR, REFINER = "two-stage-translator", "two-stage-refiner"


@dataclass(frozen=True)
class Variant:
    """A stored two-stage model. `translator` and `refiner` name the card's parts; no refiner: "".

    `styles` are names in the order of the translator's weights, at least one.
    """

    model: StoredModel
    spec: TwoStageSpec
    translator: str
    refiner: str
    styles: tuple[str, ...]

    @property
    def id(self) -> str:
        return self.model.id


@dataclass(frozen=True)
class Offered:
    """The models of one of the two effects, at one moment; `keyframe` says of which."""

    keyframe: bool
    variants: Mapping[str, Variant]

    @classmethod
    def of(cls, store: ModelStore, keyframe: bool) -> Offered:
        found = [v for v in map(_variant, store.models().values()) if v is not None and v.spec.keyframe == keyframe]
        found.sort(key=lambda v: (not v.model.built_in, v.id))
        return cls(keyframe, {v.id: v for v in found})

    def variant(self, model_id: str) -> Variant:
        """EffectError `effect.needs_model` for an id that is none of them."""
        if model_id in self.variants:
            return self.variants[model_id]
        if self.keyframe:
            what = "network trained from painted frames"
            how = (
                "Paint one or a few frames of the shot and train one: `faceplate train keyframe --in PLATE --painted "
                "PAINTED --frames-painted 1001,1048 --name NAME`."
            )
        else:
            what = "two-stage network"
            how = (
                "Train one (`faceplate train two_stage`), or import one that was trained elsewhere: `faceplate models "
                "import FILE --card CARD`. `faceplate models list` shows what is there."
            )
        none = model_id == NONE
        message = f"there is no {what}" if none else f"{model_id!r} is no {what} of this server"
        raise EffectError("effect.needs_model", message, value=model_id, remedy=how)


def _variant(model: StoredModel) -> Variant | None:
    parts = {part.network: name for name, part in reversed(model.card.parts.items())}
    if TRANSLATOR not in parts:
        return None
    spec = model.card.two_stage or TwoStageSpec()
    styles = style_names(model.card, parts[TRANSLATOR])
    return Variant(model, spec, parts[TRANSLATOR], parts.get(REFINER, ""), styles)


def style_names(card: Card, translator: str) -> tuple[str, ...]:
    """Names of the styles that part of the card holds, in the order of its weights, at least one."""
    spec = card.two_stage or TwoStageSpec()
    count = int(card.parts[translator].config.get("styles", 1))
    if len(spec.styles) == count and len(set(spec.styles)) == count:
        return spec.styles
    return tuple(f"style {i + 1}" for i in range(count)) if count > 1 else ("own",)
