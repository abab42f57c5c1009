"""The viewer: which picture is looked at and how, the picture, and the time line below it.

Result, plate and matte come through the server's one viewer path; exposure, gamma, display and view are asked of it.
"""

from __future__ import annotations

from functools import partial

from host_bridge.errors import FaceplateError
from panels import style
from panels.bridge import Bridge, image_of
from panels.controller import Picture
from panels.controller.ranges import frames_of
from panels.qt import QtCore, QtGui, QtWidgets, Signal
from panels.views.fields import Choice
from panels.views.numbers import NumberField, Slider
from panels.views.parts import Flow, label, tool
from panels.views.picture import PictureView, Shown
from panels.views.timeline import TimeLine

RESULT, PLATE, MATTE = "result", "plate", "matte"
SRGB = "sRGB"
_SIZE_STEP = 160
_SETTLE_MS = 200


class ViewerPanel(QtWidgets.QWidget):
    """`show_what` changed by the artist is told by `shown`."""

    shown = Signal(str)

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._bridge = bridge
        self._control = bridge.controller
        self.what = RESULT
        self.picture = PictureView()
        self.timeline = TimeLine()
        self._images: dict[int, tuple[Picture, Shown]] = {}
        self._resized = QtCore.QTimer(self)
        self._resized.setSingleShot(True)
        self._resized.setInterval(_SETTLE_MS)
        self._resized.timeout.connect(self._ask_size)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        top = QtWidgets.QHBoxLayout()
        top.setContentsMargins(style.MARGIN, 0, style.MARGIN, 2)
        top.addWidget(self._build_bar())
        column.addLayout(top)
        column.addWidget(self.picture, 1)
        column.addWidget(self.timeline)
        self.timeline.frame_wanted.connect(self._control.plate.set_frame)
        self.timeline.key_wanted.connect(self.go_to_key)
        self.picture.zoomed.connect(lambda _: self._resized.start())
        bridge.preview_changed.connect(self.refresh)
        bridge.plate_changed.connect(self._plate_changed)
        bridge.frame_changed.connect(self._frame_changed)
        bridge.document_changed.connect(self._keys_changed)
        bridge.server_changed.connect(self.refresh)
        bridge.job_ended.connect(self._job_ended)
        self._plate_changed()

    # what the artist does

    def show_what(self, what: str) -> None:
        """Look at the result, the plate or the matte."""
        self.what = what
        for name, button in self.modes.items():
            button.setChecked(name == what)
        self._want()
        self.shown.emit(what)
        self.refresh()

    def _press(self, what: str, _: bool = False) -> None:
        self.show_what(what)

    def toggle(self, what: str) -> None:
        """Look at plate or matte, or back at the result."""
        self.show_what(RESULT if self.what == what else what)

    def set_wipe(self, on: bool) -> None:
        """Compare with the plate across a line, or not."""
        self.wipe.setChecked(on)
        self.picture.set_wipe((self.picture.wipe or 0.5) if on else None)
        if on and self.what == PLATE:
            self.what = RESULT
        self.show_what(self.what)

    def toggle_wipe(self) -> None:
        self.set_wipe(self.picture.wipe is None)

    def set_crop(self, crop: str) -> None:
        """Look at the `face` (what the effect takes) or at the whole `frame`."""
        self._control.preview.set_viewer(crop=crop)
        self.picture.fit()

    def fit(self) -> None:
        self.picture.fit()

    def go_to_key(self, direction: int) -> None:
        """Go to the nearest keyframe of any parameter before (-1) or after (1) this frame."""
        values = self._control.values
        frame = values.previous_key() if direction < 0 else values.next_key()
        if frame is not None:
            self._control.plate.set_frame(frame)

    # what the controller says

    def refresh(self) -> None:
        """Show the newest pictures and what is to be said about them."""
        preview = self._control.preview
        state, viewer = preview.state, preview.viewer
        there = self._control.plate.state.found is not None  # else the pictures are of another plate
        looked_at = {RESULT: state.result, PLATE: state.plate, MATTE: state.matte}[self.what] if there else None
        over, under = self._shown(looked_at), self._shown(state.plate if there else None)
        if under is not None and over is not None and under.region != over.region:
            under = None  # the two cannot be compared
        self.picture.show_pictures(under, over)
        self.picture.say(
            badge=self._badge(looked_at if self.what != PLATE else None, state.behind),
            hint=state.blocked,
            error=state.error or self._control.plate.state.error,
            busy=state.busy,
        )
        self.crop.show_value(viewer.crop)
        self.exposure.show_value(viewer.exposure)
        self.exposure_number.show_value(viewer.exposure)
        self.gamma.show_value(viewer.gamma)
        self.gamma_number.show_value(viewer.gamma)
        self._show_displays()

    def _badge(self, picture: Picture | None, behind: bool) -> str:
        doing, done = self._control.server.activity
        if doing:
            return f"{doing[:1].upper()}{doing[1:]}: {done:.0%}"
        if picture is None:
            return ""
        if not picture.final:
            return f"Not final: {picture.note}"
        return "Updating" if behind else ""

    def _shown(self, picture: Picture | None) -> Shown | None:
        """The picture for Qt; pixels are converted once."""
        if picture is None or not picture.pixels:
            return None
        for kept, shown in self._images.values():
            if kept is picture:
                return shown
        x0, y0, x1, y1 = picture.region
        shown = Shown(image_of(picture), QtCore.QRectF(x0, y0, x1 - x0, y1 - y0))
        state = self._control.preview.state
        present = [p for p in (state.result, state.plate, state.matte) if p is not None]
        self._images = {k: v for k, v in self._images.items() if any(v[0] is p for p in present)}
        self._images[id(picture)] = (picture, shown)
        return shown

    def _plate_changed(self) -> None:
        state = self._control.plate.state
        if state.found is not None:
            found = state.found
            self.picture.show_plate(found.width, found.height, found.pixel_aspect)
            numbers = state.numbers
            missing = set(range(found.first, found.last + 1)).difference(numbers) if numbers else set()
            self.timeline.show_range(found.first, found.last, self._shot_range(), missing)
        else:
            self.picture.show_plate(0, 0, 1.0)
            self.timeline.show_range(0, 0)
        self._show_displays()
        self._frame_changed(self._control.plate.frame)
        self._keys_changed()
        self.refresh()

    def _job_ended(self, job_id: str) -> None:
        """An analysis makes the plate a shot: ask again what it is."""
        row = self._control.jobs.find(job_id)
        if row is not None and row.state == "finished":
            self._control.plate.refresh()

    def _shot_range(self) -> tuple[int, int] | None:
        """First and last frame of the analysed, or to be analysed, shot."""
        state = self._control.plate.state
        if state.shot_range:
            try:
                frames = frames_of(state.shot_range)
            except FaceplateError:
                return None  # the plate's page says that it cannot be read
            return (frames[0], frames[-1]) if frames else None
        if state.found is not None and (state.shot or state.found.shots):
            return state.found.first, state.found.last
        return None

    def _frame_changed(self, frame: int) -> None:
        self.timeline.show_frame(frame)
        values = self._control.values
        self.timeline.buttons["key-previous"].setEnabled(values.previous_key() is not None)
        self.timeline.buttons["key-next"].setEnabled(values.next_key() is not None)

    def _keys_changed(self) -> None:
        document = self._control.history.document
        settings = [*document.state.params.values(), *(edit.setting for edit in document.state.edits)]
        corrections = document.corrections
        corrected = {f for box in corrections.boxes.values() for f in box.keys}
        corrected |= {f for point in corrections.points.values() for f in point.keys}
        self.timeline.show_keys({f for s in settings for f in s.frames}, corrected)
        self._frame_changed(self._control.plate.frame)

    def _show_displays(self) -> None:
        color, viewer = self._control.plate.state.color, self._control.preview.viewer
        displays = color.displays if color is not None else {}
        names = ["", *displays]
        self.display.show_names(names, [SRGB, *displays])
        self.display.show_value(viewer.display)
        views = ["", *displays.get(viewer.display, [])] if viewer.display else [""]
        self.view.show_names(views, ["default", *views[1:]])
        self.view.show_value(viewer.view)
        self.view.setVisible(len(views) > 1)

    # inside

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        super().resizeEvent(event)
        self._resized.start()

    def _ask_size(self) -> None:
        """Ask for pictures about as large as they are shown: zoomed in, up to the plate's own pixels."""
        view = self.picture
        wanted = max(view.width(), view.height()) * self.devicePixelRatioF()
        shown = view.over or view.under
        if shown is not None:
            side = max(shown.region.width() * view.pixel_aspect, shown.region.height())
            wanted = max(wanted, side * min(1.0, view.scale * self.devicePixelRatioF()))
        steps = max(3, -(-int(wanted) // _SIZE_STEP))
        size = min(steps * _SIZE_STEP, self._control.connection.state.max_preview)
        if size != self._control.preview.viewer.size:
            self._control.preview.set_viewer(size=size)

    def _want(self) -> None:
        wanted = {self.what}
        if self.picture.wipe is not None:
            wanted.add(PLATE)
        if wanted != self._control.preview.wanted:
            self._control.preview.want(*sorted(wanted))

    def _build_bar(self) -> Flow:
        bar = Flow()
        group = QtWidgets.QButtonGroup(self)
        group.setExclusive(True)
        self.modes: dict[str, QtWidgets.QToolButton] = {}
        for what, tip in (
            (RESULT, "Result"),
            (PLATE, "Plate (P)"),
            (MATTE, "Matte: where the result differs from the plate (M)"),
        ):
            button = QtWidgets.QToolButton()
            button.setText(what.capitalize())
            button.setToolTip(tip)
            button.setCheckable(True)
            button.setFocusPolicy(QtCore.Qt.FocusPolicy.TabFocus)
            button.clicked.connect(partial(self._press, what))
            group.addButton(button)
            bar.add(button)
            self.modes[what] = button
        self.modes[RESULT].setChecked(True)
        self.wipe = tool("wipe", "Wipe: drag the line in the picture to compare with the plate (W)", checkable=True)
        self.wipe.setAccessibleName("Wipe")
        self.wipe.setProperty("role", "")
        self.wipe.clicked.connect(self.toggle_wipe)
        self.crop = Choice()
        self.crop.show_names(("face", "frame"), ("Face", "Whole frame"))
        self.crop.setToolTip("Look at what the effect takes, or at the whole frame (C)")
        self.crop.setAccessibleName("Region")
        self.crop.chosen.connect(self.set_crop)
        fit = tool("fit", "Fit the picture into the view (F). Wheel: zoom. Middle drag, or Alt and drag: pan", self.fit)
        again = tool("again", "Ask for the picture again (R)", lambda: self._control.preview.refresh())
        self.display, self.view = Choice(), Choice()
        for field, name in ((self.display, "Display"), (self.view, "View")):
            field.setToolTip(f"{name} of the OCIO config, for looking only")
            field.setAccessibleName(name)
            field.setMaximumWidth(5 * style.em(self) + 26)
        self.display.chosen.connect(lambda name: self._control.preview.set_viewer(display=name, view=""))
        self.view.chosen.connect(lambda name: self._control.preview.set_viewer(view=name))
        for widget in (self.wipe, self.crop, fit, again, self.display, self.view):
            bar.add(widget)
        self.exposure, self.exposure_number = self._look("exposure", -6.0, 6.0, 0.0, "Exposure in stops, looking only")
        self.gamma, self.gamma_number = self._look("gamma", 0.2, 4.0, 1.0, "Gamma, for looking only")
        bar.add(_beside("Exp", self.exposure, self.exposure_number))
        bar.add(_beside("Gamma", self.gamma, self.gamma_number))
        return bar

    def _look(self, name: str, low: float, high: float, default: float, tip: str) -> tuple[Slider, NumberField]:
        slider, number = Slider(low, high, default), NumberField(-20.0 if low < 0 else 0.01, 20.0, step=0.1)
        for widget in (slider, number):
            widget.setToolTip(f"{tip}. Double-click the slider for {default:g}")
            widget.setAccessibleName(name.capitalize())
        preview = self._control.preview
        slider.edited.connect(lambda value: preview.set_viewer(**{name: value}))
        slider.reset.connect(lambda: preview.set_viewer(**{name: default}))
        number.committed.connect(lambda value: preview.set_viewer(**{name: value}))
        return slider, number


def _beside(text: str, slider: Slider, number: NumberField) -> QtWidgets.QWidget:
    """Name, slider and number as one item."""
    box = QtWidgets.QWidget()
    line = QtWidgets.QHBoxLayout(box)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(3)
    slider.setFixedWidth(round(3.5 * style.em(box)))
    number.setFixedWidth(box.fontMetrics().horizontalAdvance("-00.00") + 14)
    for widget in (label(text, "dim"), slider, number):
        line.addWidget(widget)
    return box
