"""Effects are found by name, described without torch, and their descriptions hold together."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from host_bridge.curves import Curve
from host_bridge.effects import PARAM_TYPES, EffectDescriptor, Param, check_curve, check_values
from host_bridge.errors import EffectError
from inference_server.effects.registry import descriptor, descriptors, load_effect


def _controls(found: EffectDescriptor) -> list[Param]:
    return [p for p in (*found.params, *found.edits) if p.type not in ("group", "pushbutton")]


def test_descriptors_load_without_torch_or_opencv() -> None:
    code = (
        "import sys, inference_server.effects.registry as r; assert len(r.descriptors()) == 6; "
        "sys.exit(bool({'torch', 'cv2'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("found", descriptors(), ids=lambda d: d.identifier)
def test_a_descriptor_is_consistent(found: EffectDescriptor) -> None:
    names = [p.name for p in (*found.params, *found.edits)]
    assert len(names) == len(set(names))
    groups = {p.name for p in found.params if p.type == "group"}
    for param in (*found.params, *found.edits):
        assert param.type in PARAM_TYPES
        assert param.label
        assert not param.parent or param.parent in groups
    for param in _controls(found):
        assert param.hint, param.name
        check_curve(param, Curve.constant(param.default))
        bounds = [b for b in (param.minimum, param.display_min, param.display_max, param.maximum) if b is not None]
        assert len(bounds) in (0, 4), param.name
        assert bounds == sorted(bounds), param.name
    json.dumps(found.to_json())
    assert {c.name for c in found.clips} >= {"Source", "Mask", "Output"}
    assert all(edit.default == 0 and edit.animates for edit in found.edits)


@pytest.mark.parametrize("found", descriptors(), ids=lambda d: d.identifier)
def test_an_effect_carries_its_descriptor(found: EffectDescriptor) -> None:
    assert load_effect(found.identifier).descriptor == found


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(EffectError, match="retouch") as caught:
        descriptor("retuch")
    assert caught.value.code == "effect.unknown"
    with pytest.raises(EffectError, match="watercolour"):
        check_values(descriptor("look"), {"style": "watercolor"})
    with pytest.raises(EffectError, match="mouth_open"):
        check_values(descriptor("retouch"), {}, [("mouth_opn", 0.5)])
    with pytest.raises(EffectError, match="between -1 and 1"):
        check_values(descriptor("retouch"), {}, [("smile", 1.5)])
