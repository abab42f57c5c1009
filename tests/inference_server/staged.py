"""The descriptor of the staged test effect; importing it loads neither numpy nor torch."""

from __future__ import annotations

from host_bridge.effects import EffectDescriptor, Param
from inference_server.effects.common import composite_params
from inference_server.models.store import ModelStore

DESCRIPTOR = EffectDescriptor(
    "staged",
    "Staged",
    "1",
    "edit",
    "Paints the face in what two long steps have found.",
    params=(
        Param("iterations", "integer", "Iterations", 8, "Of either step.", 1, 10_000, 1, 100, animates=False),
        Param("start", "string", "Start", "", "An actor or a shot to go on from.", animates=False),
        Param("actor", "string", "Actor", "", "A name to keep it under.", animates=False),
        Param("salt", "integer", "Salt", 0, "Another key, the same numbers.", 0, 10_000, 0, 10, animates=False),
        Param("amount", "double", "Amount", 1.0, "What no step depends on.", 0.0, 1.0, 0.0, 1.0),
        *composite_params("replace", True),
    ),
    edits=(Param("smile", "double", "Smile", 0.0, minimum=-1.0, maximum=1.0),),
    steps=("adapt", "expression"),
)


def descriptors(models: ModelStore) -> tuple[EffectDescriptor, ...]:
    return (DESCRIPTOR,)
