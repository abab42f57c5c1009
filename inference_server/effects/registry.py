"""Which effects there are. Descriptors load without torch; an effect itself is imported when it is first needed."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from host_bridge.effects import EffectDescriptor
from host_bridge.errors import unknown_name
from inference_server.effects.look.descriptor import LOOK
from inference_server.effects.retouch.descriptor import RETOUCH
from inference_server.effects.style_portrait import descriptor as portrait
from inference_server.effects.two_stage import descriptor as two_stage
from inference_server.effects.vtoonify import descriptor as vtoonify
from inference_server.models.store import ModelStore

if TYPE_CHECKING:
    from inference_server.effects.base import Effect, Resources

Describe = Callable[[ModelStore], EffectDescriptor]

# identifier -> descriptor, or what makes it of the imported models, and "module:factory"; the factory takes Resources
_EFFECTS: dict[str, tuple[EffectDescriptor | Describe, str]] = {
    LOOK.identifier: (LOOK, "inference_server.effects.look.effect:Look"),
    RETOUCH.identifier: (RETOUCH, "inference_server.effects.retouch.effect:Retouch"),
    two_stage.TWO_STAGE: (two_stage.describe_two_stage, "inference_server.effects.two_stage.effect:two_stage"),
    two_stage.KEYFRAME: (two_stage.describe_keyframe, "inference_server.effects.two_stage.effect:keyframe"),
    vtoonify.IDENTIFIER: (vtoonify.describe, "inference_server.effects.vtoonify.effect:VToonifyEffect"),
    portrait.IDENTIFIER: (portrait.describe, "inference_server.effects.style_portrait.effect:StylePortrait"),
}


def descriptors(models: ModelStore | None = None) -> tuple[EffectDescriptor, ...]:
    """Every effect this server has, in the order artists see them; controls offer the models that are imported."""
    return tuple(descriptor(identifier, models) for identifier in _EFFECTS)


def descriptor(identifier: str, models: ModelStore | None = None) -> EffectDescriptor:
    """The descriptor of that effect; EffectError (`effect.unknown`) naming the nearest otherwise."""
    if identifier not in _EFFECTS:
        raise unknown_name("effect.unknown", "effect", identifier, list(_EFFECTS))
    found = _EFFECTS[identifier][0]
    return found if isinstance(found, EffectDescriptor) else found(models or ModelStore())


def load_effect(identifier: str, resources: Resources | None = None) -> Effect:
    """The effect itself; EffectError (`effect.unknown`) otherwise."""
    if identifier not in _EFFECTS:
        raise unknown_name("effect.unknown", "effect", identifier, list(_EFFECTS))
    from inference_server.effects.base import Resources

    module, _, factory = _EFFECTS[identifier][1].partition(":")
    make: Callable[[Resources], Effect] = getattr(import_module(module), factory)
    return make(resources or Resources())
