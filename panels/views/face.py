"""Face: who is treated, the crop's padding, and corrections by hand that are applied as a repair of the shot."""

from __future__ import annotations

from functools import partial

from panels import style
from panels.bridge import Bridge
from panels.controller import FacesState
from panels.qt import QtCore, QtGui, QtWidgets, Signal
from panels.views.fields import Choice
from panels.views.icons import icon
from panels.views.overlay import BOX, CHOOSE, NEW, POINTS, SIDES, FaceOverlay
from panels.views.parts import Flow, Page, label, push, row, set_role, told
from panels.views.rows import ParamRow, align_labels

_TOOLS = (
    (CHOOSE, "Choose", "Click a face to choose it; drag the crop's edges to change the padding"),
    (BOX, "Box", "Drag a face's box or its corners: keyed at the current frame"),
    (POINTS, "Points", "Drag a point of the face: keyed at the current frame, its neighbours follow"),
    (NEW, "New face", "Draw the box of a face that was not found"),
)
_TRACK = QtCore.Qt.ItemDataRole.UserRole


class FacePage(Page):
    """`tool_changed`: the picture has to be painted anew."""

    tool_changed = Signal()

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        self._faces = bridge.controller.faces
        self.overlay = FaceOverlay(bridge)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, style.MARGIN)
        column.setSpacing(style.GAP)
        self.state = label(wrap=True)
        self.analyse = push("Analyse shot", "Find and track the faces of the whole shot, once", self._analyse)
        column.addWidget(self.state)
        column.addLayout(row(self.analyse, 1))
        column.addWidget(label("Who", "head"))
        column.addLayout(self._build_choice())
        column.addWidget(self.tracks)
        self._padding_head = label("Crop padding", "head")
        column.addWidget(self._padding_head)
        self._paddings = QtWidgets.QVBoxLayout()
        self._paddings.setSpacing(2)
        column.addLayout(self._paddings)
        column.addWidget(label("Correct", "head"))
        column.addWidget(self._build_tools())
        self.explained = label(_TOOLS[0][2], "dim", wrap=True)
        column.addWidget(self.explained)
        column.addWidget(self._build_corrections())
        column.addWidget(self.progress)
        column.addStretch(1)
        self.padding: list[ParamRow] = []
        bridge.faces_changed.connect(self.changed)
        bridge.document_changed.connect(self.changed)
        bridge.effects_changed.connect(self.changed)
        bridge.jobs_changed.connect(self._show_progress)
        bridge.plate_changed.connect(self.changed)
        bridge.frame_changed.connect(lambda _: self.changed())

    def set_tool(self, name: str) -> None:
        """Take up one of the tools `choose`, `box`, `points`, `new`."""
        self.overlay.tool = name
        for known, button in self.tools.items():
            button.setChecked(known == name)
        self.explained.setText(next(text for known, _, text in _TOOLS if known == name))
        self.tool_changed.emit()

    def refresh(self) -> None:
        """Show how things stand."""
        state = self._faces.state
        found = state.found
        self._say_state(state)
        self.choice.show_value("largest" if state.choice == "largest" else "all" if state.choice == "all" else "track")
        self.choice.setToolTip(f"Now: {state.choice}")
        self._show_tracks()
        self._show_padding()
        locked, dirty = self._faces.locked, self._faces.dirty
        analysed = found is not None and bool(found.shot)
        for name, button in self.tools.items():
            button.setEnabled(name == CHOOSE or (analysed and not locked))
        if self.overlay.tool != CHOOSE and (locked or not analysed):
            self.set_tool(CHOOSE)
        self.apply.setEnabled(dirty and not locked and not state.applying)
        self.discard.setEnabled(dirty and not state.applying)
        view = self.overlay.face()
        keyed = view is not None and (view.box_key or bool(view.moved))
        self.unkey.setEnabled(keyed and not locked)
        self.split.setEnabled(analysed and view is not None and not locked)
        self.merge.setEnabled(analysed and not locked and self._other() is not None)
        self._show_progress()
        self.tool_changed.emit()

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        align_labels(self.padding, self.width())

    # inside

    def _build_choice(self) -> QtWidgets.QHBoxLayout:
        self.choice = Choice()
        self.choice.show_names(("largest", "all", "track"), ("Largest face", "All faces", "The selected face"))
        self.choice.setAccessibleName("Face that is treated")
        self.choice.chosen.connect(self._choose)
        self.tracks = QtWidgets.QTreeWidget()
        self.tracks.setHeaderLabels(["Face", "State", "Frames"])
        self.tracks.setRootIsDecorated(False)
        self.tracks.setUniformRowHeights(True)
        self.tracks.setFixedHeight(7 * style.em(self))
        self.tracks.setAccessibleName("Faces")
        self.tracks.setToolTip("Tick: effects see this face. Select a face to choose and correct it")
        self.tracks.itemChanged.connect(self._tick)
        self.tracks.itemClicked.connect(self._select)
        return row(self.choice, 1)

    def _build_tools(self) -> Flow:
        flow = Flow()
        group = QtWidgets.QButtonGroup(self)
        self.tools: dict[str, QtWidgets.QToolButton] = {}
        for name, text, tip in _TOOLS:
            button = QtWidgets.QToolButton()
            button.setText(text)
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setFocusPolicy(QtCore.Qt.FocusPolicy.TabFocus)
            button.clicked.connect(lambda _=False, name=name: self.set_tool(name))
            group.addButton(button)
            flow.add(button)
            self.tools[name] = button
        self.tools[CHOOSE].setChecked(True)
        return flow

    def _build_corrections(self) -> Flow:
        flow = Flow()
        self.unkey = push("Remove key", "Remove this frame's correction keys of the selected face", self._unkey)
        self.split = push("Split here", "From this frame on it is another face", self._split)
        self.merge = push("Merge", "The selected face and the chosen one are the same", self._merge)
        self.discard = push("Discard", "Back to what the shot has", self._faces.discard)
        self.apply = push(
            "Apply corrections", "Analyse the shot again with the corrections", self._faces.apply, role="main"
        )
        self.progress = QtWidgets.QProgressBar()
        self.progress.setAccessibleName("Applying corrections")
        for button in (self.unkey, self.split, self.merge, self.discard, self.apply):
            flow.add(button)
        return flow

    def _say_state(self, state: FacesState) -> None:
        found = state.found
        text, role = "", "dim"
        if state.error is not None:
            text, role = told(state.error), "bad"
        elif found is None:
            text = "Looking for faces." if state.loading else "Open a plate to see its faces."
        elif found.locked:
            text, role = "The shot is locked: its analysis is approved and cannot be corrected.", "warn"
        elif not found.shot:
            text = "Not analysed yet: these are the faces of this frame alone. Analyse the shot to correct them."
        elif not found.faces:
            text, role = "No face in this frame. Draw one with New face, or go to another frame.", "warn"
        else:
            text = f"Shot {found.shot}."
        self.state.setText(text)
        set_role(self.state, role)
        self.analyse.setVisible(found is not None and not found.shot)

    def _show_tracks(self) -> None:
        state, views = self._faces.state, {v.track: v for v in self._faces.views}
        known = {int(t["track"]): t for t in (state.found.tracks if state.found else [])}
        locked = self._faces.locked
        self.tracks.blockSignals(True)
        self.tracks.clear()
        for track in sorted({*known, *views}):
            view, listed = views.get(track), known.get(track, {})
            chosen = view.chosen if view is not None else bool(listed.get("chosen"))
            enabled = view.enabled if view is not None else bool(listed.get("enabled", True))
            here = view.state if view is not None else "not in this frame"
            item = QtWidgets.QTreeWidgetItem(
                [f"{track}{'  (chosen)' if chosen else ''}", here, str(listed.get("frames", ""))]
            )
            item.setData(0, _TRACK, track)
            flags = QtCore.Qt.ItemFlag.ItemIsSelectable | QtCore.Qt.ItemFlag.ItemIsEnabled
            if known and not locked:
                flags |= QtCore.Qt.ItemFlag.ItemIsUserCheckable
            item.setFlags(flags)
            item.setCheckState(0, QtCore.Qt.CheckState.Checked if enabled else QtCore.Qt.CheckState.Unchecked)
            if locked:
                item.setIcon(0, icon("locked", style.DIM))
            self.tracks.addTopLevelItem(item)
            if track == self.overlay.selected:
                self.tracks.setCurrentItem(item)
        for index in (0, 1):
            self.tracks.resizeColumnToContents(index)
        self.tracks.blockSignals(False)

    def _show_padding(self) -> None:
        values = self._control.values
        names = [f"padding_{side}" for side in SIDES]
        there = [p for p in values.params if p.name in names]
        if [r.param for r in self.padding] != there:
            for old in self.padding:
                self._paddings.removeWidget(old)
                old.hide()
                old.deleteLater()
            self.padding = [ParamRow(values, p, partial(str, p.name), self._control.plate.set_frame) for p in there]
            for new in self.padding:
                new.held.connect(self._control.preview.set_dragging)
                self._paddings.addWidget(new)
            align_labels(self.padding, self.width())
        for shown in self.padding:
            shown.refresh()
        self._padding_head.setVisible(bool(self.padding))

    def _show_progress(self) -> None:
        job = self._control.jobs.find(self._faces.state.applying) if self._faces.state.applying else None
        self.progress.setVisible(job is not None)
        if job is not None:
            self.progress.setRange(0, 100 if job.fraction > 0 else 0)
            self.progress.setValue(round(100 * job.fraction))
            self.progress.setFormat(f"{job.stage or job.state}  %p %")

    def _choose(self, choice: str) -> None:
        if choice == "track":
            view = self.overlay.face()
            if view is not None:
                self._faces.choose(str(view.track))
            self.refresh()
        else:
            self._faces.choose(choice)

    def _select(self, item: QtWidgets.QTreeWidgetItem, _: int) -> None:
        track = int(item.data(0, _TRACK))
        if track != self.overlay.selected:
            self.overlay.selected = track
            self._faces.choose(str(track))

    def _tick(self, item: QtWidgets.QTreeWidgetItem, column: int) -> None:
        if column == 0:
            on = item.checkState(0) == QtCore.Qt.CheckState.Checked
            track = int(item.data(0, _TRACK))
            # Afterwards: the list is made anew, and Qt is still busy with this item.
            QtCore.QTimer.singleShot(0, lambda: self._switch(track, on))

    def _switch(self, track: int, on: bool) -> None:
        edit = self._faces.corrections.tracks.get(track)
        first, last = (edit.first, edit.last) if edit is not None else (None, None)
        self._faces.set_track(track, enabled=on, first=first, last=last)

    def _other(self) -> int | None:
        """The chosen face, where it is not the selected one: what the selected one would be merged into."""
        view = self.overlay.face()
        chosen = next((v for v in self._faces.views if v.chosen), None)
        listed = self._faces.state.found.tracks if self._faces.state.found else []
        into = chosen.track if chosen else next((int(t["track"]) for t in listed if t.get("chosen")), None)
        return into if view is not None and into is not None and into != view.track else None

    def _unkey(self) -> None:
        view = self.overlay.face()
        if view is None:
            return
        if view.box_key:
            self._faces.remove_box_key(view.track)
        for landmark in view.moved:
            self._faces.remove_point_key(view.track, landmark)

    def _split(self) -> None:
        view = self.overlay.face()
        if view is not None:
            self._faces.split(view.track)

    def _merge(self) -> None:
        view, into = self.overlay.face(), self._other()
        if view is not None and into is not None:
            self._faces.merge(into, view.track)

    def _analyse(self) -> None:
        self._control.render.analyse()
