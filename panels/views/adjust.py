"""Adjust: degrees, strengths and everything else the effect has, at the current frame or keyed."""

from __future__ import annotations

from panels import style
from panels.bridge import Bridge
from panels.qt import QtWidgets, Signal
from panels.views.edits import EditList
from panels.views.forms import ParamForm
from panels.views.keys import toggle_key
from panels.views.parts import Page, label, push, row, scrolled
from panels.views.rows import ParamRow


class AdjustPage(Page):
    """`refused` carries an error that a change made."""

    refused = Signal(object)

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        values, go_to = bridge.controller.values, bridge.controller.plate.set_frame
        self.title = label("", "head")
        self.reset = push("Reset all", "Every parameter back to its default, and no edits", values.reset_all)
        self.edits = EditList(values, go_to)
        self.form = ParamForm(values, go_to)
        for part in (self.edits, self.form):
            part.refused.connect(self.refused)
            part.held.connect(bridge.controller.preview.set_dragging)
        inside = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(inside)
        column.setContentsMargins(style.MARGIN, 0, style.MARGIN, style.MARGIN)
        column.setSpacing(2 * style.GAP)
        column.addWidget(self.edits)
        column.addWidget(self.form)
        column.addStretch(1)
        self.area = scrolled(inside)
        outer = QtWidgets.QVBoxLayout(self)
        outer.setContentsMargins(0, style.MARGIN, 0, 0)
        outer.setSpacing(style.GAP)
        head = row(self.title, 1, self.reset)
        head.setContentsMargins(style.MARGIN, 0, style.MARGIN, 0)
        outer.addLayout(head)
        outer.addWidget(self.area, 1)
        bridge.document_changed.connect(self.changed)
        bridge.effects_changed.connect(self.changed)
        bridge.frame_changed.connect(lambda _: self.changed())

    def refresh(self) -> None:
        """Show the values at the current frame."""
        current = self._control.effects.current
        self.title.setText(current.label if current else "No effect yet: choose one on the page Choose")
        state = self._control.history.document.state
        self.reset.setEnabled(bool(state.params or state.edits))
        self.edits.setVisible(current is not None)
        if current is not None:
            self.edits.refresh()
        self.form.refresh()

    def focused(self) -> ParamRow | None:
        """The row that has the keyboard."""
        return self.form.focused() or self.edits.focused()

    def toggle_key(self) -> bool:
        """Set or remove a keyframe of the row that has the keyboard; False where none has."""
        focused = self.focused()
        if focused is None or not self._control.values.can_key(focused.target()):
            return False
        toggle_key(self._control.values, focused.target())
        return True
