"""Keyframe controls of one value: previous key, set or remove the key here, next key, and the menu of the rest."""

from __future__ import annotations

from collections.abc import Callable

from panels import style
from panels.controller.values import Target, Values
from panels.qt import QtWidgets
from panels.views.icons import icon
from panels.views.parts import delete_on_close

NONE, HERE, BETWEEN = "none", "here", "between"
_SAYS = {
    NONE: "No keyframes. Click to set one here (K)",
    HERE: "A keyframe is here. Click to remove it (K)",
    BETWEEN: "Between keyframes. Click to set one here (K)",
}


def key_state(values: Values, target: Target) -> str:
    """`none`: a constant; `here`: a keyframe at the current frame; `between`: keyframes elsewhere."""
    if not values.keys(target):
        return NONE
    return HERE if values.has_key(target) else BETWEEN


def toggle_key(values: Values, target: Target) -> None:
    """Set a keyframe here, or remove the one that is."""
    if values.has_key(target):
        values.remove_key(target)
    else:
        values.set_key(target)


class KeyControls(QtWidgets.QWidget):
    """`target` is asked for at every click: a row of the edit list changes its index when rows move."""

    def __init__(
        self,
        values: Values,
        target: Callable[[], Target],
        go_to: Callable[[int], None],
        parent: QtWidgets.QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._values, self._target, self._go_to = values, target, go_to
        self._state = ""
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(0)
        self.previous = self._button("key-previous", "Go to the previous keyframe", self._previous)
        self.key = self._button("key-none", "", self._toggle)
        self.next = self._button("key-next", "Go to the next keyframe", self._next)
        for button in (self.previous, self.key, self.next):
            row.addWidget(button)
        for kept in (self.previous, self.next, self):
            policy = kept.sizePolicy()
            policy.setRetainSizeWhenHidden(True)
            kept.setSizePolicy(policy)

    def refresh(self, label: str) -> None:
        """Show how things stand; `label` names the value for those who do not see the icon."""
        target = self._target()
        animates = self._values.can_key(target)
        self.setVisible(animates)
        if not animates:
            return
        state = key_state(self._values, target)
        if state != self._state:
            self._state = state
            self.key.setIcon(icon(f"key-{state}", style.FAINT if state == NONE else style.ACCENT))
            self.key.setToolTip(_SAYS[state])
        self.key.setAccessibleName(f"{label}: {_SAYS[state]}")
        self.previous.setVisible(state != NONE)
        self.next.setVisible(state != NONE)
        self.previous.setEnabled(self._values.previous_key(target) is not None)
        self.next.setEnabled(self._values.next_key(target) is not None)

    def menu(self, parent: QtWidgets.QWidget) -> QtWidgets.QMenu:
        """What can be done with the value, as a context menu."""
        values, target = self._values, self._target()
        menu = QtWidgets.QMenu(parent)
        delete_on_close(menu)
        if values.can_key(target):
            here = values.has_key(target)
            menu.addAction("Set key\tK" if not here else "Remove key\tK").triggered.connect(lambda: self._toggle())
            remove = menu.addAction("Remove all keys, keep this value")
            remove.setEnabled(bool(values.keys(target)))
            remove.triggered.connect(lambda: values.make_constant(target))
            menu.addSeparator()
            for text, frame in (
                ("Previous key", values.previous_key(target)),
                ("Next key", values.next_key(target)),
            ):
                action = menu.addAction(text if frame is None else f"{text}: {frame}")
                action.setEnabled(frame is not None)
                if frame is not None:
                    action.triggered.connect(lambda _=False, frame=frame: self._go_to(frame))
            menu.addSeparator()
        reset = menu.addAction("Reset to default")
        reset.triggered.connect(lambda: values.reset(target))
        if isinstance(target, str):
            reset.setEnabled(values.touched(target))
        return menu

    def _button(self, name: str, tip: str, clicked: Callable[[], None]) -> QtWidgets.QToolButton:
        button = QtWidgets.QToolButton()
        button.setProperty("role", "tiny")
        button.setIcon(icon(name, style.DIM))
        button.setToolTip(tip)
        button.setAccessibleName(tip)
        button.clicked.connect(clicked)
        return button

    def _toggle(self) -> None:
        toggle_key(self._values, self._target())

    def _previous(self) -> None:
        frame = self._values.previous_key(self._target())
        if frame is not None:
            self._go_to(frame)

    def _next(self) -> None:
        frame = self._values.next_key(self._target())
        if frame is not None:
            self._go_to(frame)
