"""The descriptor of an effect that copies, in the style of any imported model.

Like the real registry, importing it loads neither numpy nor torch.
"""

from __future__ import annotations

from host_bridge.effects import EffectDescriptor, Param
from inference_server.models.store import ModelStore


def descriptors(models: ModelStore) -> tuple[EffectDescriptor, ...]:
    return (
        EffectDescriptor(
            "copy",
            "Copy",
            "1",
            "edit",
            "Copies the plate.",
            params=(
                Param("amount", "double", "Amount", 1.0, minimum=0.0, maximum=2.0),
                Param("style", "choice", "Style", "plain", choices=("plain", "fancy", *models.models())),
            ),
            edits=(Param("smile", "double", "Smile", 0.0, minimum=-1.0, maximum=1.0),),
        ),
    )
