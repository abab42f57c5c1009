"""One control of an effect as a row: label, editor after its type, keyframe buttons."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from host_bridge.curves import Value
from host_bridge.effects import Param
from host_bridge.errors import FaceplateError
from panels import style
from panels.controller.values import Target, Values
from panels.qt import QtCore, QtGui, QtWidgets, Signal
from panels.views.fields import Choice, ColorField, ElidedLabel, TextField, VectorField
from panels.views.keys import HERE, NONE, KeyControls, key_state
from panels.views.numbers import NumberField, Slider
from panels.views.parts import set_role


class ParamRow(QtWidgets.QWidget):
    """Shows one target of `values` and writes back what the artist does.

    `refused` carries an error that a change made; `held` tells that a hand holds the slider, or has let it go.
    """

    refused = Signal(object)
    held = Signal(bool)

    def __init__(
        self,
        values: Values,
        param: Param,
        target: Callable[[], Target],
        go_to: Callable[[int], None],
        parent: QtWidgets.QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.param = param
        self.target = target
        self._values = values
        self.label = ElidedLabel("" if param.type == "boolean" else param.label)
        self.keys = KeyControls(values, target, go_to)
        self.setToolTip(_tip(param))
        self.slider: Slider | None = None
        self.field: NumberField | None = None
        self.line = QtWidgets.QHBoxLayout(self)
        self.line.setContentsMargins(0, 0, 0, 0)
        self.line.setSpacing(style.GAP)
        self.line.addWidget(self.label)
        self.editor: QtWidgets.QWidget = self._build()
        self.line.addWidget(self.keys)
        self.setContextMenuPolicy(QtCore.Qt.ContextMenuPolicy.DefaultContextMenu)

    def refresh(self) -> None:
        """Show the value at the current frame, its keyframes, and whether it does anything."""
        target, param = self.target(), self.param
        value = self._values.value(target)
        editor = self.editor
        if isinstance(editor, QtWidgets.QCheckBox):
            editor.blockSignals(True)
            editor.setChecked(bool(value))
            editor.blockSignals(False)
        elif isinstance(editor, Choice) and isinstance(target, str):
            editor.show_names(self._values.choices(target))
            editor.show_value(value)
        elif isinstance(editor, TextField):
            editor.show_value(str(value))
        elif isinstance(editor, (ColorField, VectorField)) and isinstance(value, tuple):
            editor.show_value(value)
        elif isinstance(value, (int, float)):
            if self.field is not None:
                self.field.show_value(float(value))
            if self.slider is not None:
                self.slider.show_value(float(value))
        self.keys.refresh(param.label)
        self._mark(target)
        acts = not isinstance(target, str) or self._values.acts(target)
        self.setEnabled(acts)
        if not acts:
            self.setToolTip(f"{_tip(param)}\nDoes nothing while {param.depends} is what it is.")
        else:
            self.setToolTip(_tip(param))

    def contextMenuEvent(self, event: QtGui.QContextMenuEvent) -> None:
        self.keys.menu(self).popup(event.globalPos())

    def _mark(self, target: Target) -> None:
        """Fields of animated values are tinted, labels of changed ones bright."""
        if self.field is not None:
            state = key_state(self._values, target)
            keyed = "" if state == NONE else "here" if state == HERE else "between"
            if self.field.property("keyed") != keyed:
                self.field.setProperty("keyed", keyed)
                self.field.style().unpolish(self.field)
                self.field.style().polish(self.field)
        touched = not isinstance(target, str) or self._values.touched(target)
        set_role(self.label, "" if touched else "dim")

    def _build(self) -> QtWidgets.QWidget:
        param = self.param
        if param.type in ("double", "integer"):
            return self._number()
        if param.type == "boolean":
            box = QtWidgets.QCheckBox(param.label)
            box.toggled.connect(self._set)
            return self._add(box)
        if param.type == "choice":
            choice = Choice(param.choices)
            choice.chosen.connect(self._set)
            return self._add(choice)
        if param.type == "rgb":
            color = ColorField(param.minimum, param.maximum)
            color.committed.connect(self._set)
            return self._add(color)
        if param.type == "double2d":
            pair = VectorField(2, ("x", "y"), param.minimum, param.maximum)
            pair.committed.connect(self._set)
            return self._add(pair)
        text = TextField()
        text.committed.connect(self._set)
        return self._add(text)

    def _add(self, editor: QtWidgets.QWidget) -> QtWidgets.QWidget:
        editor.setAccessibleName(self.param.label)
        editor.setAccessibleDescription(self.param.hint)
        self.line.addWidget(editor, 1)
        return editor

    def _number(self) -> QtWidgets.QWidget:
        param, whole = self.param, self.param.type == "integer"
        low, high = _span(param)
        field = NumberField(param.minimum, param.maximum, whole=whole, step=0.0 if whole else (high - low) / 100.0)
        field.setAccessibleName(param.label)
        field.setAccessibleDescription(param.hint)
        field.committed.connect(self._set)
        default = param.default if isinstance(param.default, (int, float)) else 0.0
        slider = Slider(low, high, float(default), whole=whole)
        slider.setAccessibleName(f"{param.label}, slider")
        slider.edited.connect(self._drag)
        slider.sliderPressed.connect(lambda: self.held.emit(True))
        slider.sliderReleased.connect(lambda: self.held.emit(False))
        slider.committed.connect(lambda _: self._values.release())
        slider.reset.connect(lambda: self._try(lambda: self._values.reset(self.target())))
        self.line.addWidget(slider, 3)
        self.line.addWidget(field, 1)
        self.slider, self.field = slider, field
        return field

    def _set(self, value: object) -> None:
        self._try(lambda: self._values.set(self.target(), self._typed(value)))

    def _drag(self, value: float) -> None:
        self._try(lambda: self._values.set(self.target(), self._typed(value), dragging=True))

    def _typed(self, value: object) -> Value:
        if self.param.type == "integer" and isinstance(value, (int, float)):
            return int(value)
        if isinstance(value, (bool, int, float, str, tuple)):
            return value
        raise TypeError(f"no value of a parameter: {value!r}")

    def _try(self, change: Callable[[], None]) -> None:
        try:
            change()
        except FaceplateError as error:
            self.refused.emit(error)
            self.refresh()


def align_labels(rows: Sequence[ParamRow], width: int) -> None:
    """Give all rows' labels one width, so that editors stand in a column; at most two fifths of `width`."""
    wanted = max((row.label.sizeHint().width() for row in rows), default=0)
    for row in rows:
        row.label.setFixedWidth(min(wanted, max(40, int(width * 0.4))))


def _span(param: Param) -> tuple[float, float]:
    """What the slider spans: the display range, else the range, else what suits the default."""
    default = float(param.default) if isinstance(param.default, (int, float)) else 0.0
    low = param.display_min if param.display_min is not None else param.minimum
    high = param.display_max if param.display_max is not None else param.maximum
    low = low if low is not None else min(0.0, 2 * default)
    high = high if high is not None else max(1.0, 2 * default)
    return low, high


def _tip(param: Param) -> str:
    """The hint, and what may be typed."""
    lines = [param.hint or param.label]
    if param.type in ("double", "integer") and param.minimum is not None and param.maximum is not None:
        lines.append(f"{param.minimum:g} to {param.maximum:g}. Double-click the slider for the default.")
    return "\n".join(lines)
