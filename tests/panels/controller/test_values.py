"""Values without a server: keyframes, edits, what depends on what, undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from host_bridge.curves import Curve
from host_bridge.effects import EffectDescriptor, Param
from host_bridge.errors import EffectError
from panels.controller.connection import Connection
from panels.controller.document import History, Setting
from panels.controller.observe import Errands
from panels.controller.values import Effects, Values

EFFECT = EffectDescriptor(
    "test",
    "Test",
    "1",
    "edit",
    "For tests.",
    params=(
        Param("model", "choice", "Model", "d", choices=("d", "t"), animates=False),
        Param(
            "style",
            "choice",
            "Style",
            "cartoon",
            choices=("cartoon", "pixar", "arcane"),
            animates=False,
            depends="model",
            choices_for=(("d", ("cartoon", "pixar")), ("t", ("arcane",))),
        ),
        Param("degree", "double", "Degree", 0.5, minimum=0.0, maximum=1.0, depends="model", acts_for=("d",)),
        Param("levels", "integer", "Levels", 4, minimum=1, maximum=9),
        Param("more", "group", "More"),
    ),
    edits=(Param("smile", "double", "Smile", 0.0, minimum=-1, maximum=1), Param("age", "double", "Age", 0.0)),
)


class _NoHome:
    def post(self, work: Callable[[], None]) -> None:
        raise AssertionError("nothing is to be asked")

    def later(self, seconds: float, work: Callable[[], None]) -> Callable[[], None]:
        raise AssertionError("nothing is to be asked")


class _Bench:
    def __init__(self) -> None:
        self.frame = 1001
        self.history = History()
        self.effects = Effects(Connection(_NoHome(), Errands(_NoHome())), self.history)
        self.effects.descriptors = (EFFECT, replace(EFFECT, identifier="other"))
        self.effects.choose("test")
        self.history.forget()
        self.values = Values(self.effects, self.history, lambda: self.frame)


@pytest.fixture
def bench() -> _Bench:
    return _Bench()


def test_untouched_values_are_defaults_and_are_not_sent(bench: _Bench) -> None:
    values = bench.values
    assert values.value("degree") == 0.5
    assert not values.touched("degree")
    assert values.as_json() == ({}, [])
    values.set("degree", 0.7)
    assert values.touched("degree")
    assert values.as_json() == ({"degree": 0.7}, [])
    values.reset("degree")
    assert values.as_json() == ({}, [])


def test_keyframes(bench: _Bench) -> None:
    values = bench.values
    values.set("degree", 0.2)
    values.set_key("degree")
    assert values.keys("degree") == (1001.0,)
    bench.frame = 1011
    assert not values.has_key("degree")
    values.set("degree", 1.0)  # where keys exist, a value is a key
    assert values.keys("degree") == (1001.0, 1011.0)
    bench.frame = 1006
    assert values.value("degree") == pytest.approx(0.6)
    assert (values.previous_key("degree"), values.next_key("degree")) == (1001, 1011)
    assert (values.previous_key("levels"), values.next_key()) == (None, 1011)
    assert values.as_json()[0] == {"degree": {"keys": [[1001.0, 0.2], [1011.0, 1.0]]}}
    bench.frame = 1001
    values.remove_key("degree")
    bench.frame = 1011
    values.remove_key("degree")
    assert values.keys("degree") == ()
    assert values.setting("degree") == Setting.constant(1.0)


def test_one_keyframe_is_not_a_constant(bench: _Bench) -> None:
    values = bench.values
    values.set_key("degree")
    assert values.keys("degree") == (1001.0,)
    bench.frame = 1005
    values.set("degree", 0.9)
    assert values.keys("degree") == (1001.0, 1005.0)
    values.make_constant("degree")
    assert values.setting("degree") == Setting.constant(0.9)


def test_what_does_not_animate_cannot_be_keyed(bench: _Bench) -> None:
    bench.values.set_key("style")
    bench.frame = 1009
    with pytest.raises(EffectError, match="does not animate"):
        bench.values.set("style", "pixar")
    assert not bench.values.can_key("style")


@pytest.mark.parametrize(("name", "value"), [("degree", 1.5), ("degree", "high"), ("levels", 2.5), ("style", "anime")])
def test_what_a_parameter_does_not_take_is_refused_and_changes_nothing(
    bench: _Bench, name: str, value: float | str
) -> None:
    before = bench.history.document
    with pytest.raises(EffectError) as caught:
        bench.values.set(name, value)
    assert caught.value.remedy
    assert bench.history.document is before


def test_controls_that_depend_on_another(bench: _Bench) -> None:
    values = bench.values
    assert values.choices("style") == ("cartoon", "pixar")
    assert values.acts("degree")
    values.set("style", "pixar")
    values.set("model", "t")
    assert values.choices("style") == ("arcane",)
    assert values.value("style") == "arcane"  # what it was is not offered any more
    assert not values.acts("degree")
    assert values.problem() is None
    bench.history.undo()  # one step, both back
    assert (values.value("model"), values.value("style")) == ("d", "pixar")


def test_edits_keep_their_order(bench: _Bench) -> None:
    values = bench.values
    assert values.add_edit("smile", 0.5) == 0
    assert values.add_edit("age") == 1
    values.set(1, -0.25)
    values.add_edit("smile")
    values.move_edit(2, 0)
    assert values.as_json()[1] == [["smile", 0.0], ["smile", 0.5], ["age", -0.25]]
    values.set_key(2)
    bench.frame = 1003
    values.set(2, 1.0)
    assert values.keys(2) == (1001.0, 1003.0)
    values.remove_edit(0)
    assert [row.name for row in values.edits] == ["smile", "age"]
    values.reset(0)
    assert values.value(0) == 0.0
    with pytest.raises(EffectError, match="smlie"):
        values.add_edit("smlie")


def test_a_drag_is_one_step(bench: _Bench) -> None:
    values, history = bench.values, bench.history
    for step in range(50):
        values.set("degree", step / 50, dragging=True)
    assert history.dragging
    values.release()
    assert not history.dragging
    values.set("degree", 0.3, dragging=True)
    values.release()
    history.undo()
    assert values.value("degree") == pytest.approx(0.98)
    history.undo()
    assert values.value("degree") == 0.5
    assert (history.undo_label, history.redo_label) == ("", "Set Degree")
    history.redo()
    history.redo()
    assert values.value("degree") == 0.3


def test_a_new_change_ends_what_could_be_done_again(bench: _Bench) -> None:
    bench.values.set("degree", 0.1)
    bench.history.undo()
    bench.values.set("levels", 7)
    assert bench.history.redo_label == ""


def test_every_effect_keeps_its_values(bench: _Bench) -> None:
    bench.values.set("degree", 0.1)
    bench.effects.choose("other")
    assert bench.values.value("degree") == 0.5
    bench.effects.choose("test")
    assert bench.values.value("degree") == 0.1
    with pytest.raises(EffectError, match="tets"):
        bench.effects.choose("tets")


def test_a_whole_curve(bench: _Bench) -> None:
    bench.values.set_curve("degree", Curve(((1001.0, 0.0), (1010.0, 1.0))))
    assert bench.values.keys("degree") == (1001.0, 1010.0)
    with pytest.raises(EffectError, match="degree"):
        bench.values.set_curve("degree", Curve(((1001.0, 0.0), (1010.0, 2.0))))


def test_observers_are_told_once_for_each_change_and_not_after_they_left(bench: _Bench) -> None:
    told: list[float] = []
    leave = bench.history.changed.connect(lambda: told.append(float(str(bench.values.value("degree")))))
    bench.values.set("degree", 0.1)
    bench.values.set("degree", 0.1)  # nothing new
    bench.values.set("degree", 0.2)
    leave()
    bench.values.set("degree", 0.3)
    assert told == [0.1, 0.2]
