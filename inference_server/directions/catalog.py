"""Decides which edits of codes the imported models make, under which names, and how each is read from the store.

A model makes an edit when its card has a tensor `direction` or a Latent Transformer's network; its edit is named by the
model's id without `direction-`. GANSpace's file of components makes the edits of its published list, named
`ganspace-...`. Installed packages may register more (transformers.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from host_bridge.effects import Param
from host_bridge.errors import ModelError, unknown_name
from inference_server.directions import ganspace, transformers
from inference_server.directions.types import CodeEdit, Direction, Kind
from inference_server.models.cards import DirectionSpec, official_cards
from inference_server.models.store import ModelStore, StoredModel

PREFIX = "direction-"  # what the ids of stored directions begin with
TENSOR = "direction"


@dataclass(frozen=True)
class Offered:
    """An edit that can be used now.

    name     what an edit list calls it
    label    for people
    display  the strengths a slider spans; any other is allowed, 0 changes nothing
    model    the stored model it is read from, with that model's hash and licence; "" for a registered transformer,
             whose hash is the loaded edit's `digest`
    layers   the rows [first, stop) it moves, None for all
    """

    name: str
    label: str
    hint: str
    kind: Kind
    display: tuple[float, float]
    model: str
    sha256: str
    licence: str
    noncommercial: bool = False
    layers: tuple[int, int] | None = None

    def param(self) -> Param:
        """The control that hosts show for it."""
        low, high = self.display
        return Param(self.name, "double", self.label, 0.0, self.hint, display_min=low, display_max=high)


def edit_name(model_id: str) -> str:
    """What the direction of that model is called in an edit list."""
    return model_id.removeprefix(PREFIX)


def offered(store: ModelStore) -> tuple[Offered, ...]:
    """Every edit of the imported models and of installed packages, by name; of models it reads the cards only."""
    found: dict[str, Offered] = {
        name: Offered(name, t.label, t.hint, "transformer", t.display, "", "", t.licence, t.noncommercial)
        for name, t in transformers.registered()[0].items()
    }
    for model in store.models().values():
        for one in _of_model(model):
            # What the artist imported by itself hides what comes with a list.
            if one.name not in found or not found[one.name].model or one.kind != "component":
                found[one.name] = one
    return tuple(found[name] for name in sorted(found))


def problems() -> list[ModelError]:
    """What is wrong with registered transformers that `offered` leaves out."""
    return transformers.registered()[1]


def load(store: ModelStore, name: str, *, layers: int, size: int) -> CodeEdit:
    """The edit of that name for a generator with `layers` style inputs of `size` values.

    Raises ModelError `model.mismatch` with both shapes where it is of another size, `model.not_imported` where
    Faceplate knows it, `model.unknown` otherwise, `model.stored`.
    """
    one = next((o for o in offered(store) if o.name == name), None)
    if one is None:
        raise _unknown(store, name)
    edit = _open(store, one)
    edit.check(layers, size)
    return edit


def load_linear(store: ModelStore, name: str, *, size: int) -> Direction:
    """The direction of that name as one row [1, size], for algebra on directions.

    Raises ModelError as `load`, and `model.mismatch` where it has rows of its own or is no direction at all.
    """
    one = next((o for o in offered(store) if o.name == name), None)
    if one is None:
        raise _unknown(store, name)
    edit = _read(store.get(one.model), one) if one.kind != "transformer" else None
    if edit is None or edit.rows.shape != (1, size):
        found = "a learned transformer" if edit is None else list(edit.rows.shape)
        raise ModelError(
            "model.mismatch",
            f"expected a direction [1, {size}], but {name!r} is {found}",
            value=name,
            remedy="Name a direction of one row, made for the same generator.",
        )
    return edit


def _of_model(model: StoredModel) -> Iterator[Offered]:
    card = model.card
    if card.id == ganspace.MODEL:
        for listed in ganspace.EDITS:
            reach = abs(listed.strength)
            yield Offered(
                listed.name,
                f"{listed.label} (GANSpace)",
                f"Component {listed.k} on rows {listed.first} to {listed.last}; {reach:g} is for sampled faces, "
                "on a real one less is right.",
                "component",
                (-reach, reach),
                model.id,
                model.sha256,
                model.licence,
                card.noncommercial,
                (listed.first, listed.last + 1),
            )
    elif any(part.network == transformers.NETWORK for part in card.parts.values()):
        yield Offered(
            edit_name(card.id),
            edit_name(card.id),
            "A learned transformer of codes; 1 is a full change.",
            "transformer",
            transformers.DISPLAY,
            model.id,
            model.sha256,
            model.licence,
            card.noncommercial,
        )
    elif TENSOR in card.tensors:
        spec = card.direction or DirectionSpec()
        yield Offered(
            edit_name(card.id),
            card.title.removeprefix("Direction: "),
            card.notes or card.purpose,
            "linear",
            spec.display,
            model.id,
            model.sha256,
            model.licence,
            card.noncommercial,
            spec.layers,
        )


def _open(store: ModelStore, one: Offered) -> CodeEdit:
    if not one.model:
        return transformers.registered()[0][one.name].make(store)
    model = store.get(one.model)
    return transformers.LatentTransformerEdit(one.name, model) if one.kind == "transformer" else _read(model, one)


def _read(model: StoredModel, one: Offered) -> Direction:
    from inference_server.models.loading import load_tensors

    tensors = {name: np.asarray(value.numpy(), dtype=np.float32) for name, value in load_tensors(model).items()}
    if one.kind == "component":
        listed = ganspace.BY_NAME[one.name]
        sign = 1.0 if listed.strength > 0 else -1.0
        return ganspace.component(tensors, listed.k, one.layers, name=one.name, sign=sign, licence=model.licence)
    spec = model.card.direction or DirectionSpec()
    rows = tensors[TENSOR]
    rows = rows.reshape(-1, rows.shape[-1])
    if (rows == rows[:1]).all():
        rows = rows[:1]  # the published [18, 512] files repeat one row: that fits a generator of any size
    return Direction(
        one.name, np.ascontiguousarray(rows), spec.layers, spec.scale, source=model.card.title, licence=model.licence
    )


def _unknown(store: ModelStore, name: str) -> Exception:
    """The error for a name nothing imported has: how to get it where it is known, else which there are."""
    if name in ganspace.BY_NAME:
        store.get(ganspace.MODEL)  # raises: it is not imported
    known = {edit_name(card.id): card.id for card in official_cards() if TENSOR in card.tensors}
    if name in known:
        store.get(known[name])
    return unknown_name("model.unknown", "direction", name, [one.name for one in offered(store)])
