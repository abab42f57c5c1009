"""The menu: undo and redo, presets saved, loaded and shared as files, values kept in the host, the keys."""

from __future__ import annotations

from pathlib import Path

from host_bridge.errors import FaceplateError
from panels import style
from panels.bridge import Bridge
from panels.presets import SUFFIX, PresetFile
from panels.qt import QtWidgets, Signal
from panels.views.parts import Labelled, delete_on_close, label, told, tool

_FILES = f"Faceplate presets (*{SUFFIX});;All files (*)"


class SaveDialog(QtWidgets.QDialog):
    """Name and note of a preset. Stays open, and says why, where it cannot be saved."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget) -> None:
        super().__init__(parent)
        self._presets = bridge.controller.presets
        self.setWindowTitle("Save preset")
        delete_on_close(self)
        self.name = QtWidgets.QLineEdit()
        self.note = QtWidgets.QLineEdit()
        self.shared = QtWidgets.QCheckBox("For everybody (shared folder)")
        self.shared.setEnabled(self._presets.can_share)
        self.over = QtWidgets.QCheckBox("Replace one of that name")
        self.error = label(role="bad", wrap=True)
        self.error.hide()
        self.buttons = QtWidgets.QDialogButtonBox()
        self.buttons.addButton("Save", QtWidgets.QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.addButton("Cancel", QtWidgets.QDialogButtonBox.ButtonRole.RejectRole)
        self.buttons.accepted.connect(self._save)
        self.buttons.rejected.connect(self.reject)
        fields = Labelled()
        fields.add("Name", self.name)
        fields.add("Note", self.note)
        column = QtWidgets.QVBoxLayout(self)
        column.setSpacing(2 * style.GAP)
        column.addLayout(fields)
        for widget in (self.shared, self.over, self.error, self.buttons):
            column.addWidget(widget)
        self.setMinimumWidth(24 * style.em(self))

    def _save(self) -> None:
        try:
            self._presets.save(
                self.name.text().strip(),
                note=self.note.text().strip(),
                shared=self.shared.isChecked(),
                replace=self.over.isChecked(),
            )
        except FaceplateError as error:
            self.error.setText(told(error))
            self.error.show()
        else:
            self.accept()


class PanelMenu(QtWidgets.QToolButton):
    """`keys_wanted`: the sheet of keys."""

    keys_wanted = Signal()

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._bridge = bridge
        self._control = bridge.controller
        look = tool("down", "Undo, presets, keys", text="Menu", flat=False)
        self.setText(look.text())
        self.setIcon(look.icon())
        self.setToolTip(look.toolTip())
        self.setAccessibleName("Menu")
        self.setToolButtonStyle(look.toolButtonStyle())
        self.setFocusPolicy(look.focusPolicy())
        self.clicked.connect(self.open)

    def open(self) -> None:
        """Show the menu below the button."""
        menu = self.build()
        menu.popup(self.mapToGlobal(self.rect().bottomLeft()))

    def build(self) -> QtWidgets.QMenu:
        """The menu as things stand."""
        menu = QtWidgets.QMenu(self)
        delete_on_close(menu)
        menu.setToolTipsVisible(True)
        history, presets = self._control.history, self._control.presets
        undo = menu.addAction(f"Undo {_lower(history.undo_label)}\tCtrl+Z")
        undo.setEnabled(bool(history.undo_label))
        undo.triggered.connect(lambda: history.undo())
        redo = menu.addAction(f"Redo {_lower(history.redo_label)}\tCtrl+Y")
        redo.setEnabled(bool(history.redo_label))
        redo.triggered.connect(lambda: history.redo())
        menu.addSeparator()
        presets.refresh()
        load = menu.addMenu("Presets")
        load.setToolTipsVisible(True)
        load.setEnabled(bool(presets.files))
        for file in presets.files:
            self._add_preset(load, file)
        chosen = self._control.effects.current is not None
        for text, what, needs in (
            ("Save preset…", self._save, True),
            ("Load preset file…", self._load, False),
            ("Write preset file…", self._export, True),
        ):
            action = menu.addAction(text)
            action.setEnabled(chosen or not needs)
            action.triggered.connect(what)
        own = [file for file in presets.files if not file.shared]
        gone = menu.addMenu("Delete preset")
        gone.setEnabled(bool(own))
        for file in own:
            gone.addAction(_name(file)).triggered.connect(lambda _=False, path=file.path: self._remove(path))
        menu.addSeparator()
        host = self._control.host
        if host is not None:
            keep = menu.addAction(f"Keep values in {host.name}")
            keep.triggered.connect(lambda: self._control.keep_in_host())
        live = menu.addAction("Live preview")
        live.setCheckable(True)
        live.setChecked(self._control.preview.live)
        live.triggered.connect(self._control.preview.set_live)
        menu.addAction("Keys\tF1").triggered.connect(lambda: self.keys_wanted.emit())
        return menu

    # inside

    def _add_preset(self, menu: QtWidgets.QMenu, file: PresetFile) -> None:
        action = menu.addAction(_name(file) + ("  (shared)" if file.shared else ""))
        if file.preset is None:
            action.setEnabled(False)
            action.setToolTip(str(file.error) if file.error else "")
        else:
            action.setToolTip("\n".join(part for part in (file.preset.effect, file.preset.note) if part))
            action.triggered.connect(lambda _=False, path=file.path: self._apply(path))

    def _apply(self, path: Path) -> None:
        try:
            for error in self._control.presets.apply(path):
                self._control.notices.error(error)
        except FaceplateError as error:
            self._control.notices.error(error)

    def _remove(self, path: Path) -> None:
        try:
            self._control.presets.remove(path)
        except FaceplateError as error:
            self._control.notices.error(error)

    def _save(self) -> None:
        SaveDialog(self._bridge, self.window()).open()

    def _load(self) -> None:
        dialog = QtWidgets.QFileDialog(self.window(), "Load preset file", "", _FILES)
        delete_on_close(dialog)
        dialog.setFileMode(QtWidgets.QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(lambda path: self._apply(Path(path)))
        dialog.open()

    def _export(self) -> None:
        dialog = QtWidgets.QFileDialog(self.window(), "Write preset file", "", _FILES)
        delete_on_close(dialog)
        dialog.setAcceptMode(QtWidgets.QFileDialog.AcceptMode.AcceptSave)
        dialog.fileSelected.connect(self._write)
        dialog.open()

    def _write(self, path: str) -> None:
        try:
            self._control.presets.export(Path(path if path.endswith(".json") else path + SUFFIX))
        except FaceplateError as error:
            self._control.notices.error(error)


def _name(file: PresetFile) -> str:
    return file.preset.name if file.preset is not None else file.path.name


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
