"""Models: present, missing and how to get them, their licences, and importing files."""

from __future__ import annotations

from panels import style
from panels.bridge import Bridge
from panels.controller import LicenceQuestion, ModelCard
from panels.qt import QtCore, QtGui, QtWidgets
from panels.views.parts import Page, delete_on_close, items_of, label, push, row, set_role, size_in_words, told

_ID = QtCore.Qt.ItemDataRole.UserRole
_FILES = "Checkpoints (*.pt *.pth *.npy *.npz *.pkl *.safetensors *.onnx *.dat *.task);;All files (*)"


class ModelsPage(Page):
    """The list, the selected card, and imports under way."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        self._models = bridge.controller.models
        self._asked: LicenceQuestion | None = None
        self._dialog: QtWidgets.QMessageBox | None = None
        self.search = QtWidgets.QLineEdit()
        self.search.setPlaceholderText("Search")
        self.search.setAccessibleName("Search models")
        self.search.textChanged.connect(lambda _: self._filter())
        self.present_only = QtWidgets.QCheckBox("Present")
        self.present_only.setToolTip("List only the models that are there")
        self.present_only.toggled.connect(lambda _: self._filter())
        self.list = QtWidgets.QTreeWidget()
        self.list.setHeaderLabels(["Model", "State", "Licence"])
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setAlternatingRowColors(True)
        self.list.setAccessibleName("Models")
        self.list.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.list.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QtWidgets.QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QtWidgets.QHeaderView.ResizeMode.ResizeToContents)
        header.resizeSection(2, 8 * style.em(self))
        self.list.currentItemChanged.connect(lambda *_: self._show())
        self.state = label(role="dim", wrap=True)
        self.title = label(role="head", wrap=True)
        self.text = label(wrap=True)
        self.licences = label(wrap=True)
        self.licences.setTextFormat(QtCore.Qt.TextFormat.RichText)
        self.licences.setOpenExternalLinks(True)
        self.licences.setTextInteractionFlags(QtCore.Qt.TextInteractionFlag.TextBrowserInteraction)
        self.how = label(wrap=True)
        self.page = push("Open web page", "Where its authors publish it", self._open)
        self.file = push("Import file", "A checkpoint as its authors publish it, on the server's machine", self._browse)
        self.again = push("Refresh", "Ask the server again which models are there", self._models.refresh)
        self.progress = QtWidgets.QProgressBar()
        self.progress.setAccessibleName("Import")
        self.imported = label(wrap=True)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, style.MARGIN)
        column.setSpacing(style.GAP)
        column.addLayout(row(self.search, self.present_only))
        column.addWidget(self.list, 1)
        for widget in (self.state, self.title, self.text, self.licences, self.how, self.progress, self.imported):
            column.addWidget(widget)
        column.addLayout(row(self.file, self.page, 1, self.again))
        bridge.models_changed.connect(self.changed)
        bridge.models_changed.connect(self._ask)

    def refresh(self) -> None:
        """Show the cards, the imports, and the licence that waits for an answer."""
        cards, models = self._models.cards, self._models
        current = self._current()
        self.list.blockSignals(True)
        self.list.clear()
        for card in cards:
            terms = ", ".join(name for name, _, _ in card.licences)
            item = QtWidgets.QTreeWidgetItem([card.label, "Present" if card.present else "Missing", terms])
            item.setData(0, _ID, card.id)
            item.setToolTip(0, f"{card.label}\n{card.id}")
            item.setForeground(1, QtGui.QBrush(style.color(style.GOOD if card.present else style.DIM)))
            if not card.commercial:
                item.setForeground(2, QtGui.QBrush(style.color(style.ACCENT)))
                item.setToolTip(2, f"{terms}\nNo commercial use")
            self.list.addTopLevelItem(item)
            if current is not None and card.id == current.id:
                self.list.setCurrentItem(item)
        self.list.blockSignals(False)
        self._filter()
        text = told(models.error) if models.error else "Asking for the models." if models.loading and not cards else ""
        self.state.setText(text)
        self.state.setVisible(bool(text))
        set_role(self.state, "bad" if models.error else "dim")
        self._show()
        self._show_imports()

    def select(self, model: str) -> None:
        """Show a card."""
        self.search.clear()
        self.present_only.setChecked(False)
        for item in items_of(self.list):
            if item.data(0, _ID) == model:
                self.list.setCurrentItem(item)
                self.list.scrollToItem(item)

    def import_file(self, path: str) -> None:
        """Import a file; which model it is, the server finds out."""
        self._models.import_file(path)

    # inside

    def _current(self) -> ModelCard | None:
        item = self.list.currentItem()
        name = item.data(0, _ID) if item is not None else None
        return next((card for card in self._models.cards if card.id == name), None)

    def _filter(self) -> None:
        words = self.search.text().lower().split()
        cards = {card.id: card for card in self._models.cards}
        for item in items_of(self.list):
            card = cards[str(item.data(0, _ID))]
            text = f"{card.id} {card.label} {card.summary}".lower()
            fits = all(word in text for word in words) and (card.present or not self.present_only.isChecked())
            item.setHidden(not fits)

    def _show(self) -> None:
        card = self._current()
        for widget in (self.title, self.text, self.licences, self.how):
            widget.setVisible(card is not None)
        self.page.setEnabled(card is not None and bool(card.url))
        if card is None:
            return
        self.title.setText(card.label)
        size = f"  {size_in_words(card.size)}" if card.size else ""
        self.text.setText(f"{card.summary}{size}")
        self.licences.setText(
            "<br>".join(
                (f'<a style="color:{style.MARK}" href="{_safe(url)}">{_safe(name)}</a>' if url else _safe(name))
                + (f": {_safe(summary)}" if summary else "")
                for name, summary, url in card.licences
            )
        )
        how = "Present." if card.present else card.how
        self.how.setText(how if card.usable else "Listed only: no effect here uses it.")
        set_role(self.how, "dim" if not card.usable else "good" if card.present else "warn")

    def _show_imports(self) -> None:
        newest = self._models.imports[0] if self._models.imports else None
        running = newest is not None and newest.state == "running"
        self.progress.setVisible(running)
        self.imported.setVisible(newest is not None)
        if newest is None:
            return
        if running:
            self.progress.setRange(0, 100 if newest.done > 0 else 0)
            self.progress.setValue(round(100 * newest.done))
        if newest.error is not None:
            self.imported.setText(told(newest.error))
        else:
            self.imported.setText(f"{newest.model or newest.path}: {newest.message or newest.state}")
        set_role(self.imported, "bad" if newest.error else "good" if newest.state == "finished" else "dim")

    def _ask(self) -> None:
        """Put the licence before the artist, once for each question."""
        question = self._models.question
        if question is None:
            dialog, self._dialog, self._asked = self._dialog, None, None
            if dialog is not None:
                dialog.close()
            return
        if question == self._asked:
            return
        self._asked = question
        dialog = QtWidgets.QMessageBox(self.window())
        delete_on_close(dialog)
        dialog.setWindowTitle("Licence")
        dialog.setIcon(QtWidgets.QMessageBox.Icon.NoIcon)
        dialog.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        card = next((c for c in self._models.cards if c.id == question.model), None)
        dialog.setText(f"{card.label if card else question.path}\n\n{question.error.message}")
        terms = "\n".join(": ".join(p for p in (n, s) if p) for n, s, _ in card.licences) if card else ""
        dialog.setInformativeText(terms or question.error.remedy)
        accept = dialog.addButton("Accept and import", QtWidgets.QMessageBox.ButtonRole.AcceptRole)
        decline = dialog.addButton("Do not import", QtWidgets.QMessageBox.ButtonRole.RejectRole)
        dialog.setEscapeButton(decline)
        dialog.setDefaultButton(decline)
        accept.clicked.connect(lambda: self._answer(True))
        decline.clicked.connect(lambda: self._answer(False))
        self._dialog = dialog
        dialog.open()

    def _answer(self, accepted: bool) -> None:
        self._dialog = None
        if accepted:
            self._models.accept()
        else:
            self._models.decline()

    def _browse(self) -> None:
        dialog = QtWidgets.QFileDialog(self.window(), "Import a model", "", _FILES)
        delete_on_close(dialog)
        dialog.setFileMode(QtWidgets.QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.import_file)
        dialog.open()

    def _open(self) -> None:
        card = self._current()
        if card is not None and card.url:
            QtGui.QDesktopServices.openUrl(QtCore.QUrl(card.url))


def _safe(text: str) -> str:
    """Text inside rich text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
