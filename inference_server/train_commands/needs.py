"""Stored models that a run learns from: named by role, all looked for before one is loaded, pinned by their hash.

A run's configuration holds `role = "id@digits"`; a run that goes on finds the same weights or says which have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from host_bridge.errors import FaceplateError, ModelError
from inference_server.models.store import ModelStore, StoredModel
from inference_server.training.errors import TrainingError

if TYPE_CHECKING:
    from torch import nn

N = TypeVar("N", bound="nn.Module")

PIN = 12  # digits of the hash


def check_roles(
    named: Mapping[str, str], roles: Iterable[str], optional: Iterable[str] = (), fixed: Mapping[str, str] | None = None
) -> None:
    """Every role has a model and no other has, `fixed` ones their own; TrainingError `training.config`."""
    known = list(roles)
    for role in [*named, *known]:
        name = named.get(role, "").partition("@")[0]
        problem = ""
        if role not in known:
            problem = "is none of this run's"
        elif not name and role not in optional:
            problem = "has no model"
        elif fixed is not None and name != fixed.get(role, name):
            problem = f"is always {fixed[role]!r}"
        if problem:
            raise TrainingError(
                "training.config",
                f"role {role!r} {problem}",
                remedy=f"Roles: {', '.join(known)}. Name a model: --model ROLE=ID (`faceplate models list`).",
                value=role,
            )


def find_models(named: Mapping[str, str], store: ModelStore, hints: Mapping[str, str]) -> dict[str, StoredModel]:
    """The stored models by role; roles without a name are left out.

    `named` are ids, with or without a pin. Raises one ModelError for all that are missing, whose remedy says how to get
    each (`hints`, by role, adds what else can be done), and TrainingError `training.resume` for a changed one.
    """
    found: dict[str, StoredModel] = {}
    missing: dict[str, str] = {}
    for role, name in named.items():
        own, _, pin = name.partition("@")
        if not own:
            continue
        try:
            model = store.get(own)
        except FaceplateError as error:
            # What no card knows can only come from a run of one's own; a list of all cards would not help.
            remedies = [error.remedy] if error.code != "model.unknown" or role not in hints else []
            missing[role] = " ".join([f"{role}: {error.message}.", *remedies, hints.get(role, "")]).strip()
            continue
        if pin and not model.sha256.startswith(pin):
            raise TrainingError(
                "training.resume",
                f"the model {own!r} ({role}) is not the one this run was started with ({pin}): {model.sha256[:PIN]}",
                remedy="Import the earlier file again, or start a new run in another folder.",
                value=own,
            )
        found[role] = model
    if missing:
        raise ModelError(
            "model.not_imported",
            f"{len(missing)} of {len(named)} models that this run learns from are not there: "
            + ", ".join(f"{named[role].partition('@')[0]} ({role})" for role in missing),
            value=[named[role].partition("@")[0] for role in missing],
            remedy="\n  ".join(["", *missing.values()]),
        )
    return found


def pinned(found: Mapping[str, StoredModel]) -> dict[str, str]:
    """The models by role, as a run's configuration names them."""
    return {role: f"{model.id}@{model.sha256[:PIN]}" for role, model in found.items()}


def licences_of(found: Mapping[str, StoredModel]) -> tuple[Mapping[str, Any], ...]:
    """The licences of all of them, each once, as the result's card lists them."""
    every = {licence.id: licence for model in found.values() for licence in model.card.licences}
    return tuple(msgspec.to_builtins(licence) for licence in every.values())


def network(model: StoredModel, kind: type[N], part: str = "main") -> N:
    """A network of the model, which has to be of that class; ModelError `model.mismatch` otherwise."""
    from inference_server.models.loading import load_network

    loaded = load_network(model, part=part)
    if not isinstance(loaded, kind):
        raise ModelError(
            "model.mismatch",
            f"{model.id!r} is a {type(loaded).__name__}, expected a {kind.__name__}",
            value=model.id,
            remedy="Name another model with --model ROLE=ID.",
        )
    return loaded


def tensor(model: StoredModel, name: str) -> Any:
    """A tensor that the model's card names; ModelError `model.mismatch` where it holds none of that name."""
    from inference_server.models.loading import load_tensors

    held = load_tensors(model)
    if name not in held:
        raise ModelError(
            "model.mismatch",
            f"{model.id!r} holds no {name!r}, but {', '.join(held) or 'no single tensors'}",
            value=model.id,
            remedy="Name another model with --model ROLE=ID.",
        )
    return held[name]
