"""The one window: plate bar, viewer, pages, banner and notices; docked in a host or alone, narrow or wide.

Wide, the viewer stands beside the pages; narrow, above them. The picture belongs to the page that is looked at: Face
shows the whole plate with what was found, the others the result.
"""

from __future__ import annotations

from functools import partial

from panels import style
from panels.bridge import Bridge
from panels.qt import QtCore, QtGui, QtWidgets
from panels.views.adjust import AdjustPage
from panels.views.choose import ChoosePage
from panels.views.face import FacePage
from panels.views.jobs import JobsPage
from panels.views.menu import PanelMenu
from panels.views.messages import Banner, NoticeStrip
from panels.views.models import ModelsPage
from panels.views.parts import scrolled
from panels.views.plate import PlateBar
from panels.views.render import RenderPage
from panels.views.server import ServerPage
from panels.views.shortcuts import Key, Keys, KeySheet
from panels.views.viewer import MATTE, PLATE, RESULT, ViewerPanel

_SIDE_BY_SIDE = 46  # from so many lines' heights of width on, viewer and pages stand side by side


class _Split(QtWidgets.QSplitter):
    """It turns before it is too narrow, so that its parts never need room beside each other."""

    def minimumSizeHint(self) -> QtCore.QSize:
        widgets = (self.widget(i) for i in range(self.count()))
        parts = [widget.minimumSizeHint() for widget in widgets if widget is not None]
        return QtCore.QSize(max(p.width() for p in parts), max(p.height() for p in parts))


class PanelWindow(QtWidgets.QWidget):
    """The panel. Closing it ends what the bridge began."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.bridge = bridge
        self._control = bridge.controller
        self._opened = self._split = False
        self._before = (RESULT, "face", False)  # how the picture was looked at before the page Face
        self.setWindowTitle("Faceplate")
        self.setObjectName("faceplate")
        style.apply(self)
        self.plate = PlateBar(bridge)
        self.menu = PanelMenu(bridge)
        self.plate.line.addWidget(self.menu)
        self.banner = Banner(bridge)
        self.notices = NoticeStrip(bridge)
        self.viewer = ViewerPanel(bridge)
        self.choose = ChoosePage(bridge)
        self.face = FacePage(bridge)
        self.adjust = AdjustPage(bridge)
        self.render_page = RenderPage(bridge)
        self.jobs = JobsPage(bridge)
        self.models = ModelsPage(bridge)
        self.server = ServerPage(bridge)
        self.tabs = QtWidgets.QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setUsesScrollButtons(True)
        self.tabs.tabBar().setDrawBase(False)
        self.tabs.setAccessibleName("Pages")
        for page, title, tip in (
            (self.choose, "Choose", "Effect, style, directions (Ctrl+1)"),
            (scrolled(self.face), "Face", "Faces, crop and corrections (Ctrl+2)"),
            (self.adjust, "Adjust", "Degrees, strengths, keyframes (Ctrl+3)"),
            (self.render_page, "Render", "Output and range (Ctrl+4)"),
            (self.jobs, "Jobs", "What runs and what has ended (Ctrl+5)"),
            (self.models, "Models", "Present, missing, licences (Ctrl+6)"),
            (scrolled(self.server), "Server", "State, devices, connect (Ctrl+7)"),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(page, title), tip)
        self.splitter = _Split(QtCore.Qt.Orientation.Horizontal)
        self.splitter.setChildrenCollapsible(False)
        self.splitter.addWidget(self.viewer)
        self.splitter.addWidget(self.tabs)
        self.splitter.setStretchFactor(0, 3)
        self.splitter.setStretchFactor(1, 2)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addWidget(self.banner)
        column.addWidget(self.plate)
        column.addWidget(self.splitter, 1)
        column.addWidget(self.notices)
        self.keys = Keys(self._key_table())
        self._connect()

    # what happens

    def show_page(self, index: int) -> None:
        self.tabs.setCurrentIndex(index)

    def show_keys(self) -> None:
        """The sheet of keys."""
        KeySheet(self.keys.table, self).show()

    def sizeHint(self) -> QtCore.QSize:
        unit = style.em(self)
        return QtCore.QSize(76 * unit, 48 * unit)

    def _connect(self) -> None:
        self.tabs.currentChanged.connect(self._page_changed)
        self.choose.model_wanted.connect(self._show_model)
        self.render_page.jobs_wanted.connect(lambda: self.tabs.setCurrentWidget(self.jobs))
        self.banner.server_wanted.connect(lambda: self.tabs.setCurrentIndex(self.tabs.count() - 1))
        self.menu.keys_wanted.connect(self.show_keys)
        self.adjust.refused.connect(self._control.notices.error)
        self.face.tool_changed.connect(self.viewer.picture.update)

    def _page_changed(self, index: int) -> None:
        """The page Face shows the whole plate and what was found; leaving it, all is as it was."""
        viewer = self.viewer
        on_face = index == 1
        was_on_face = viewer.picture.overlay is not None
        if on_face == was_on_face:
            return
        self._control.faces.watch(on_face)
        if on_face:
            crop = self._control.preview.viewer.crop
            self._before = (viewer.what, crop, viewer.picture.wipe is not None)
            viewer.picture.overlay = self.face.overlay
            viewer.set_wipe(False)
            viewer.show_what(PLATE)
            viewer.set_crop("frame")
        else:
            viewer.picture.overlay = None
            what, crop, wipe = self._before
            viewer.show_what(what)
            viewer.set_wipe(wipe)
            viewer.set_crop(crop)
        viewer.picture.update()

    def _show_model(self, model: str) -> None:
        self.tabs.setCurrentWidget(self.models)
        self.models.select(model)

    # keys

    def _key_table(self) -> tuple[Key, ...]:
        plate, history, viewer = self._control.plate, self._control.history, self.viewer
        pages = [self.tabs.tabText(i) for i in range(self.tabs.count())]
        return (
            Key(("Left", "J"), "One frame back", lambda: plate.step(-1), "Frames"),
            Key(("Right", "L"), "One frame forward", lambda: plate.step(1), "Frames"),
            Key(("Shift+Left",), "Ten frames back", lambda: plate.step(-10), "Frames"),
            Key(("Shift+Right",), "Ten frames forward", lambda: plate.step(10), "Frames"),
            Key(("Home",), "First frame", lambda: plate.step(-(10**9)), "Frames"),
            Key(("End",), "Last frame", lambda: plate.step(10**9), "Frames"),
            Key(("PageUp", ","), "Previous keyframe", lambda: viewer.go_to_key(-1), "Frames"),
            Key(("PageDown", "."), "Next keyframe", lambda: viewer.go_to_key(1), "Frames"),
            Key(("K",), "Set or remove a keyframe of the value in hand", self._toggle_key, "Values"),
            Key(("Ctrl+Z",), "Undo", history.undo, "Values"),
            Key(("Ctrl+Y", "Ctrl+Shift+Z"), "Redo", history.redo, "Values"),
            Key(("M",), "Matte, and back", lambda: viewer.toggle(MATTE), "Picture"),
            Key(("P",), "Plate, and back", lambda: viewer.toggle(PLATE), "Picture"),
            Key(("W",), "Wipe between plate and result", viewer.toggle_wipe, "Picture"),
            Key(("C",), "Face or whole frame", self._toggle_crop, "Picture"),
            Key(("F",), "Fit the picture into the view", viewer.fit, "Picture"),
            Key(("R",), "Ask for the picture again", self._control.preview.refresh, "Picture"),
            Key(("Ctrl+Return", "Ctrl+Enter"), "Render", self._control.render.render, "Work"),
            Key(("Escape",), "Dismiss the notice", self.notices.hide, "Work"),
            *(
                Key((f"Ctrl+{i + 1}",), f"Page {page}", partial(self.show_page, i), "Work")
                for i, page in enumerate(pages)
            ),
            Key(("F1",), "This sheet", self.show_keys, "Work"),
        )

    def _toggle_key(self) -> None:
        if not self.adjust.toggle_key():
            self._control.notices.info("Click the value that is to be keyed first, then press K.")

    def _toggle_crop(self) -> None:
        self.viewer.set_crop("frame" if self._control.preview.viewer.crop == "face" else "face")

    def event(self, event: QtCore.QEvent) -> bool:
        override = event.type() == QtCore.QEvent.Type.ShortcutOverride
        if override and isinstance(event, QtGui.QKeyEvent) and self.keys.find(event) is not None:
            event.accept()  # it comes as a key press, and no shortcut of a host takes it
            return True
        return super().event(event)

    def keyPressEvent(self, event: QtGui.QKeyEvent) -> None:
        key = self.keys.find(event)
        if key is None:
            super().keyPressEvent(event)
        else:
            key.do()

    # Qt

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        super().showEvent(event)
        if not self._opened:
            self._opened = True
            self._control.open()
            self.viewer.picture.setFocus(QtCore.Qt.FocusReason.OtherFocusReason)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        wide = self.width() >= _SIDE_BY_SIDE * style.em(self)
        wanted = QtCore.Qt.Orientation.Horizontal if wide else QtCore.Qt.Orientation.Vertical
        if self.splitter.orientation() != wanted or not self._split:
            self._split = True
            self.splitter.setOrientation(wanted)
            self.splitter.setSizes([self.width() * 2 // 3, self.width() // 3] if wide else [1000, 1000])

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:
        self.bridge.close()
        super().closeEvent(event)
