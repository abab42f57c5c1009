"""Which effects there are. Descriptors load without torch; an effect itself is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from host_bridge.effects import EffectDescriptor
from host_bridge.errors import unknown_name
from inference_server.effects.look.descriptor import LOOK
from inference_server.effects.retouch.descriptor import RETOUCH

if TYPE_CHECKING:
    from inference_server.effects.base import Effect

# identifier -> descriptor and "module:factory"; the factory takes a device name
_EFFECTS: dict[str, tuple[EffectDescriptor, str]] = {
    LOOK.identifier: (LOOK, "inference_server.effects.look.effect:Look"),
    RETOUCH.identifier: (RETOUCH, "inference_server.effects.retouch.effect:Retouch"),
}


def descriptors() -> tuple[EffectDescriptor, ...]:
    """Every effect this server has, in the order artists see them."""
    return tuple(found for found, _ in _EFFECTS.values())


def descriptor(identifier: str) -> EffectDescriptor:
    """The descriptor of that effect; EffectError (`effect.unknown`) naming the nearest otherwise."""
    if identifier not in _EFFECTS:
        raise unknown_name("effect.unknown", "effect", identifier, list(_EFFECTS))
    return _EFFECTS[identifier][0]


def load_effect(identifier: str, device: str = "cpu") -> Effect:
    """The effect itself on a torch device (`cpu`, `cuda:0`, ...); EffectError (`effect.unknown`) otherwise."""
    descriptor(identifier)
    module, _, factory = _EFFECTS[identifier][1].partition(":")
    make: Callable[[str], Effect] = getattr(import_module(module), factory)
    return make(device)
