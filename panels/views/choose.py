"""Choose: the effect, then its style from a grid of thumbnails, or directions for the edit list; what they need."""

from __future__ import annotations

from collections.abc import Sequence

from host_bridge.effects import EffectDescriptor
from panels import style
from panels.bridge import Bridge, image_of
from panels.controller import ModelCard
from panels.qt import QtCore, QtGui, QtWidgets, Signal
from panels.views.fields import Choice, in_words
from panels.views.parts import Page, label, push, row, set_role

_NAME = QtCore.Qt.ItemDataRole.UserRole
_THUMB = 6  # lines of text a thumbnail is high


class StyleGrid(QtWidgets.QListWidget):
    """Choices as pictures that arrive one after the other. `visible_changed` lists those in sight, in order."""

    visible_changed = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setViewMode(QtWidgets.QListView.ViewMode.IconMode)
        self.setResizeMode(QtWidgets.QListView.ResizeMode.Adjust)
        self.setMovement(QtWidgets.QListView.Movement.Static)
        self.setUniformItemSizes(True)
        self.setTextElideMode(QtCore.Qt.TextElideMode.ElideRight)
        self.setSpacing(2)
        self.setAccessibleName("Styles")
        self._names: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()
        self._settle = QtCore.QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(80)
        self._settle.timeout.connect(self._tell)
        self.verticalScrollBar().valueChanged.connect(lambda _: self._settle.start())

    def show_names(self, names: Sequence[str], hints: dict[str, str]) -> None:
        """Offer these; pictures are filled in by `show_picture`."""
        if tuple(names) == self._names:
            return
        self._names, self._told = tuple(names), ()
        self.clear()
        side = _THUMB * style.em(self)
        self.setIconSize(QtCore.QSize(side, side))
        self.setGridSize(QtCore.QSize(side + 10, side + round(1.4 * style.em(self)) + 8))
        empty = _empty(side, self.devicePixelRatioF())
        for name in names:
            item = QtWidgets.QListWidgetItem(empty, in_words(name))
            item.setData(_NAME, name)
            item.setToolTip(hints.get(name, in_words(name)))
            self.addItem(item)
        self._settle.start()

    def show_picture(self, name: str, image: QtGui.QImage) -> None:
        """The thumbnail of a choice."""
        side, ratio = self.iconSize().width(), self.devicePixelRatioF()
        for item in self._items():
            if item.data(_NAME) == name:
                item.setIcon(_icon(_square(image, side, ratio)))

    def forget_pictures(self) -> None:
        """The thumbnails are of another plate."""
        empty = _empty(self.iconSize().width(), self.devicePixelRatioF())
        for item in self._items():
            item.setIcon(empty)

    def show_current(self, name: object) -> None:
        for item in self._items():
            if item.data(_NAME) == name:
                if self.currentItem() is not item:
                    self.setCurrentItem(item)
                return
        self.setCurrentRow(-1)

    def search(self, text: str) -> int:
        """Hide what does not contain all words of `text`; how many are left."""
        words = text.lower().split()
        left = 0
        for item in self._items():
            found = all(word in item.text().lower() for word in words)
            item.setHidden(not found)
            left += found
        self._settle.start()
        return left

    def in_sight(self) -> tuple[str, ...]:
        """Names whose pictures can be seen now."""
        if not self.isVisible():
            return ()
        port = self.viewport().rect()
        return tuple(
            str(item.data(_NAME))
            for item in self._items()
            if not item.isHidden() and self.visualItemRect(item).intersects(port)
        )

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._settle.start()

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        self._settle.start()

    def hideEvent(self, event: QtGui.QHideEvent) -> None:
        super().hideEvent(event)
        self._settle.start()

    def _items(self) -> list[QtWidgets.QListWidgetItem]:
        return [self.item(i) for i in range(self.count())]

    def _tell(self) -> None:
        names = self.in_sight()
        if names != self._told:
            self._told = names
            self.visible_changed.emit(names)


class DirectionList(QtWidgets.QListWidget):
    """Attribute directions; those in the edit list are ticked. `wanted(name, on)` when the artist ticks one."""

    wanted = Signal(str, bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setAccessibleName("Attribute directions")
        self._names: tuple[str, ...] = ()
        self.itemChanged.connect(self._changed)

    def show_directions(self, directions: Sequence[tuple[str, str, str]], used: set[str]) -> None:
        """(name, label, hint) of each, and which are in the edit list."""
        self.blockSignals(True)
        names = tuple(name for name, _, _ in directions)
        if names != self._names:
            self._names = names
            self.clear()
            for name, text, hint in directions:
                item = QtWidgets.QListWidgetItem(text)
                item.setData(_NAME, name)
                item.setToolTip(hint)
                item.setFlags(item.flags() | QtCore.Qt.ItemFlag.ItemIsUserCheckable)
                self.addItem(item)
        for index in range(self.count()):
            item = self.item(index)
            ticked = item.data(_NAME) in used
            item.setCheckState(QtCore.Qt.CheckState.Checked if ticked else QtCore.Qt.CheckState.Unchecked)
        self.blockSignals(False)

    def search(self, text: str) -> int:
        """Hide what contains not all words of `text` in its label or hint; how many are left."""
        words = text.lower().split()
        left = 0
        for index in range(self.count()):
            item = self.item(index)
            found = all(word in f"{item.text()} {item.toolTip()}".lower() for word in words)
            item.setHidden(not found)
            left += found
        return left

    def _changed(self, item: QtWidgets.QListWidgetItem) -> None:
        self.wanted.emit(str(item.data(_NAME)), item.checkState() == QtCore.Qt.CheckState.Checked)


class ChoosePage(Page):
    """`model_wanted(id)`: the artist asks how to get a model."""

    model_wanted = Signal(str)

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        self._missing = ""
        self._pattern = ""
        self.effect = Choice()
        self.effect.setAccessibleName("Effect")
        self.effect.chosen.connect(self._control.effects.choose)
        self.search = QtWidgets.QLineEdit()
        self.search.setPlaceholderText("Search")
        self.search.setAccessibleName("Search styles and directions")
        self.search.setClearButtonEnabled(False)
        self.search.textChanged.connect(self._search)
        self.summary = label(role="dim", wrap=True)
        self.licence = label(role="dim", wrap=True)
        self.model = label(wrap=True)
        self.get = push(
            "How to get it", "Open the model on the tab Models", lambda: self.model_wanted.emit(self._missing)
        )
        self.loading = QtWidgets.QProgressBar()
        self.loading.setAccessibleName("Loading")
        self.grid = StyleGrid()
        self.grid.visible_changed.connect(lambda names: self._control.thumbnails.want(names))
        self.grid.itemClicked.connect(self._pick)
        self.grid.itemActivated.connect(self._pick)
        self.directions = DirectionList()
        self.directions.wanted.connect(self._direct)
        self.nothing = label("Nothing of that name.", "dim")
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, style.MARGIN)
        column.setSpacing(style.GAP)
        column.addLayout(row(self.effect, self.search))
        for widget in (self.summary, self.licence, self.model, self.loading):
            column.addWidget(widget)
        column.addLayout(row(self.get, 1))
        column.addWidget(self.nothing)
        column.addWidget(self.grid, 1)
        column.addWidget(self.directions, 1)
        bridge.effects_changed.connect(self.changed)
        bridge.document_changed.connect(self.changed)
        bridge.models_changed.connect(self.changed)
        bridge.server_changed.connect(self._show_loading)
        bridge.thumbnail_ready.connect(self._thumbnail)
        bridge.plate_changed.connect(self._plate_changed)

    def refresh(self) -> None:
        """Show the effects, the chosen one's styles or directions, and what it needs."""
        effects, values = self._control.effects, self._control.values
        names = [d.identifier for d in effects.descriptors]
        self.effect.show_names(names, [d.label for d in effects.descriptors])
        current = effects.current
        self.effect.show_value(current.identifier if current else None)
        self.search.setEnabled(current is not None)
        if current is None:
            self.summary.setText(
                "Asking the server for its effects."
                if effects.loading
                else str(effects.error or "Effects are listed when a server is connected.")
            )
        else:
            self.summary.setText(current.summary)
        param = self._control.thumbnails.param if current is not None else ""
        self.grid.setVisible(bool(param))
        self.directions.setVisible(current is not None and bool(current.edits))
        self._show_needs(current)
        self._show_loading()
        if current is not None and param:
            hints = {name: f"{in_words(name)}\n{current.param(param).hint}" for name in values.choices(param)}
            before = self.grid.count()
            self.grid.show_names(values.choices(param), hints)
            if self.grid.count() != before:
                for name in values.choices(param):
                    self._thumbnail(name)
            self.grid.show_current(values.value(param))
        if current is not None:
            directions = [(p.name, p.label, p.hint) for p in current.edits]
            self.directions.show_directions(directions, {edit.name for edit in values.edits})
        self._search(self.search.text())

    def _show_needs(self, current: EffectDescriptor | None) -> None:
        """Licences of the effect and of the models it uses, and which models are missing."""
        cards = {card.id: card for card in self._control.models.cards}
        needed = [cards[name] for name in (current.models if current else ()) if name in cards]
        lines = [f"Licence: {current.licence}"] if current is not None else []
        for card in needed:
            terms = ", ".join(name for name, _, _ in card.licences)
            lines.append(f"{card.label}: {terms}{'' if card.commercial else ' (no commercial use)'}")
        self.licence.setText("\n".join(lines))
        self.licence.setVisible(bool(lines))
        set_role(self.licence, "dim" if all(card.commercial for card in needed) else "warn")
        missing = [card for card in needed if not card.present]
        self._missing = missing[0].id if missing else ""
        self.model.setText(_needs(missing, bool(needed)))
        set_role(self.model, "bad" if missing else "good")
        self.model.setVisible(bool(needed))
        self.get.setVisible(bool(missing))

    def _show_loading(self) -> None:
        doing, done = self._control.server.activity
        self.loading.setVisible(bool(doing))
        if doing:
            self.loading.setRange(0, 100 if done > 0 else 0)
            self.loading.setValue(round(100 * done))
            self.loading.setFormat(f"{doing}  %p %")

    def _thumbnail(self, name: str) -> None:
        picture = self._control.thumbnails.get(name)
        if picture is not None:
            self.grid.show_picture(name, image_of(picture))

    def _plate_changed(self) -> None:
        pattern = self._control.plate.state.spec.pattern
        if pattern != self._pattern:
            self._pattern = pattern
            self.grid.forget_pictures()

    def _pick(self, item: QtWidgets.QListWidgetItem) -> None:
        self._control.values.set(self._control.thumbnails.param, str(item.data(_NAME)))

    def _direct(self, name: str, on: bool) -> None:
        """Tick: append to the edit list. Untick: take every edit of that direction out."""
        values = self._control.values
        if on:
            values.add_edit(name)
            return
        for index in reversed([i for i, edit in enumerate(values.edits) if edit.name == name]):
            values.remove_edit(index)

    def _want_model(self) -> None:
        self.model_wanted.emit(self._missing)

    def _search(self, text: str) -> None:
        left = 0
        if not self.grid.isHidden():
            left += self.grid.search(text)
        if not self.directions.isHidden():
            left += self.directions.search(text)
        self.nothing.setVisible(bool(text) and left == 0)


def _needs(missing: Sequence[ModelCard], any_needed: bool) -> str:
    if missing:
        return f"Missing: {', '.join(card.label for card in missing)}"
    return "All models are present." if any_needed else ""


def _empty(side: int, ratio: float) -> QtGui.QIcon:
    """What stands where a thumbnail will be."""
    pixmap = QtGui.QPixmap(round(side * ratio), round(side * ratio))
    pixmap.setDevicePixelRatio(ratio)
    pixmap.fill(style.color(style.SURROUND))
    return _icon(pixmap)


def _icon(pixmap: QtGui.QPixmap) -> QtGui.QIcon:
    """An icon that is not tinted when it is selected."""
    result = QtGui.QIcon(pixmap)
    result.addPixmap(pixmap, QtGui.QIcon.Mode.Selected)
    return result


def _square(image: QtGui.QImage, side: int, ratio: float) -> QtGui.QPixmap:
    """The middle of a picture, cut to a square."""
    pixels = round(side * ratio)
    whole = image.scaled(
        pixels,
        pixels,
        QtCore.Qt.AspectRatioMode.KeepAspectRatioByExpanding,
        QtCore.Qt.TransformationMode.SmoothTransformation,
    )
    cut = whole.copy((whole.width() - pixels) // 2, (whole.height() - pixels) // 2, pixels, pixels)
    result = QtGui.QPixmap.fromImage(cut)
    result.setDevicePixelRatio(ratio)
    return result
