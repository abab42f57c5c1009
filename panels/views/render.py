"""Render: output, range, colourspace, mattes, what is in the way, and the job that runs."""

from __future__ import annotations

from host_bridge.jobspec import MATTE_NAMES
from panels import style
from panels.bridge import Bridge
from panels.qt import QtWidgets, Signal
from panels.views.farm import FarmBox
from panels.views.fields import Choice, TextField, in_words
from panels.views.numbers import NumberField
from panels.views.parts import (
    ADAPT,
    ADAPT_TIP,
    Flow,
    Labelled,
    Page,
    delete_on_close,
    label,
    push,
    row,
    scrolled,
    set_role,
    time_in_words,
    told,
    tool,
)

_COMPRESSIONS = ("", "none", "rle", "zips", "zip", "piz", "pxr24", "b44", "b44a", "dwaa", "dwab")
_FILES = "EXR (*.exr);;DPX, TIFF, PNG (*.dpx *.tif *.tiff *.png);;All files (*)"


class RenderPage(Page):
    """`jobs_wanted`: the artist asks for the list of jobs."""

    jobs_wanted = Signal()

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        self._render = bridge.controller.render
        inside = QtWidgets.QWidget()
        column = QtWidgets.QVBoxLayout(inside)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, style.MARGIN)
        column.setSpacing(2 * style.GAP)
        column.addLayout(self._build_fields())
        column.addWidget(label("Mattes in the file", "head"))
        column.addWidget(self._build_mattes())
        column.addLayout(self._build_switches())
        column.addWidget(label("Farm", "head"))
        self.farm = FarmBox(bridge.controller)
        column.addWidget(self.farm)
        self.problems = label(role="bad", wrap=True)
        column.addWidget(self.problems)
        column.addStretch(1)
        outer = QtWidgets.QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, style.MARGIN)
        outer.setSpacing(style.GAP)
        outer.addWidget(scrolled(inside), 1)
        self.progress = QtWidgets.QProgressBar()
        self.progress.setAccessibleName("Progress of the last job")
        self.progress.setMinimumWidth(4 * style.em(self))
        self.cancel = push("Cancel", "End the job before its next frame; finished frames stay", self._cancel)
        self.details = push("Jobs", "Show all jobs", self.jobs_wanted.emit)
        self.running = row(self.progress, self.cancel, self.details)
        self.running.setStretch(0, 1)
        self.said = label(role="dim", wrap=True)
        self.analyse = push("Analyse", "Find and track the faces of the whole shot, once", self._render.analyse)
        self.adapt = push(ADAPT, ADAPT_TIP, self._render.adapt)
        self.submit = push("Render", "Render the range (Ctrl+Return)", self._render.render, role="main")
        foot = QtWidgets.QVBoxLayout()
        foot.setContentsMargins(style.MARGIN, 0, style.MARGIN, 0)
        foot.addLayout(self.running)
        foot.addWidget(self.said)
        buttons = row(self.analyse, self.adapt, self.submit)
        buttons.setStretch(2, 1)
        foot.addLayout(buttons)
        outer.addLayout(foot)
        bridge.render_changed.connect(self.changed)
        bridge.plate_changed.connect(self.changed)
        bridge.document_changed.connect(self.changed)
        bridge.effects_changed.connect(self.changed)
        bridge.connection_changed.connect(self.changed)
        bridge.jobs_changed.connect(self._show_job)

    def refresh(self) -> None:
        """Show the settings and what is in the way."""
        settings, plate = self._render.settings, self._control.plate.state
        self.output.show_value(settings.output)
        self.output.setPlaceholderText(self._render.suggest_output() or "renders/shot.%04d.exr")
        self.frames.show_value(settings.frames)
        self.frames.setPlaceholderText(plate.found.frames if plate.found else "1001-1100, every frame if empty")
        self.matte_output.show_value(settings.matte_output)
        self.compression.show_value(settings.compression)
        self.priority.show_value(settings.priority)
        names = list(plate.color.colorspaces) if plate.color else []
        if plate.spec.colorspace and plate.spec.colorspace not in names:
            names.insert(0, plate.spec.colorspace)  # an alias, or a space of another config
        read = plate.found.colorspace if plate.found else ""
        self.colorspace.show_names(["", *names], [f"as read ({read})" if read else "as read", *names])
        self.colorspace.show_value(plate.spec.colorspace)
        for name, box in self.channels.items():
            _tick(box, name in settings.matte_channels)
        for field, box in self.switches.items():
            _tick(box, bool(getattr(settings, field)))
        self.switches["import_result"].setVisible(self._control.host is not None)
        problems = self._render.problems()
        self.problems.setText("\n\n".join(told(p) for p in problems))
        self.problems.setVisible(bool(problems))
        self.submit.setEnabled(not problems and not self._render.preparing)
        self.farm.submit.setEnabled(self.submit.isEnabled())
        self.analyse.setEnabled(self._control.connection.ready and bool(plate.spec.pattern))
        self.adapt.setVisible(self._render.adapts)
        self.adapt.setEnabled(not self._render.adapt_problems() and not self._render.preparing)
        self._show_job()

    # inside

    def _build_fields(self) -> Labelled:
        fields = Labelled()
        self.output = TextField()
        self.output.committed.connect(lambda text: self._render.set(output=text))
        suggest = push("Suggest", "A name beside the plate", self._suggest)
        browse = tool("folder", "Choose where the frames go", self._browse)
        fields.add("Output", self.output, suggest, browse, tip="Where frames go: shots/sh010_toon.%04d.exr")
        self.frames = TextField()
        self.frames.committed.connect(lambda text: self._render.set(frames=text))
        fields.add("Frames", self.frames, tip="1001-1100, 1001-1100x2 or 1001,1005-1010. Empty: all on disk")
        self.colorspace = Choice()
        self.colorspace.chosen.connect(lambda name: self._control.plate.set(colorspace=name))
        fields.add("Colourspace", self.colorspace, tip="OCIO colourspace of the plate; the output has the same")
        self.compression = Choice()
        self.compression.show_names(_COMPRESSIONS, ("as read", *(c.upper() for c in _COMPRESSIONS[1:])))
        self.compression.chosen.connect(lambda name: self._render.set(compression=name))
        fields.add("Compression", self.compression, tip="Of the EXR files that are written")
        self.matte_output = TextField("none")
        self.matte_output.committed.connect(lambda text: self._render.set(matte_output=text))
        fields.add("Matte files", self.matte_output, tip="The matte as a sequence of its own, if named")
        self.priority = NumberField(-100, 100, whole=True)
        self.priority.committed.connect(lambda value: self._render.set(priority=int(value)))
        fields.add("Priority", self.priority, tip="Higher runs earlier, -100 to 100")
        return fields

    def _build_mattes(self) -> Flow:
        flow = Flow(3 * style.GAP)
        self.channels: dict[str, QtWidgets.QCheckBox] = {}
        for name in MATTE_NAMES:
            box = QtWidgets.QCheckBox(in_words(name))
            box.setToolTip(f"Write the matte as the channel faceplate.{name}")
            box.toggled.connect(lambda _: self._set_channels())
            flow.add(box)
            self.channels[name] = box
        return flow

    def _build_switches(self) -> QtWidgets.QVBoxLayout:
        column = QtWidgets.QVBoxLayout()
        column.setSpacing(style.GAP)
        self.switches: dict[str, QtWidgets.QCheckBox] = {}
        for field, text, tip in (
            ("skip_existing", "Keep frames that are there", "Only whole frames that this very job made are kept"),
            ("continue_on_error", "Go on after a frame that failed", "Else the job ends with the first one"),
            ("import_result", "Bring the result into the host", "Read node or clip, when the job is done"),
        ):
            box = QtWidgets.QCheckBox(text)
            box.setToolTip(tip)
            box.toggled.connect(lambda on, field=field: self._render.set(**{field: on}))
            column.addWidget(box)
            self.switches[field] = box
        return column

    def _set_channels(self) -> None:
        self._render.set(matte_channels=tuple(n for n, box in self.channels.items() if box.isChecked()))

    def _suggest(self) -> None:
        self._render.set(output=self._render.suggest_output())

    def _browse(self) -> None:
        start = self._render.settings.output or self._render.suggest_output()
        dialog = QtWidgets.QFileDialog(self.window(), "Output", start, _FILES)
        delete_on_close(dialog)
        dialog.setAcceptMode(QtWidgets.QFileDialog.AcceptMode.AcceptSave)
        dialog.setOption(QtWidgets.QFileDialog.Option.DontConfirmOverwrite)
        dialog.fileSelected.connect(lambda path: self._render.set(output=path))
        dialog.open()

    def _show_job(self) -> None:
        """The newest job of this panel."""
        job = next((r for r in self._control.jobs.rows if r.own), None)
        live = job is not None and job.live
        for widget in (self.progress, self.cancel, self.details):
            widget.setVisible(live)
        text = self._render.preparing
        if job is not None and live:
            self.progress.setRange(0, 100 if job.fraction > 0 else 0)
            self.progress.setValue(round(100 * job.fraction))
            self.progress.setFormat(f"{in_words(job.stage or job.state)}  %p %")
            if not text and job.kind == "adapt":
                text = job.note
            self.cancel.setEnabled(not job.cancelling)
        elif job is not None and not text:
            if job.error is not None:
                text = told(job.error)
            elif job.kind == "adapt" and job.state == "finished":
                text = "The shot is adapted: with these values it can be rendered."
            elif job.kind == "adapt" and job.state == "cancelled":
                text = (
                    "Adapting was stopped; what was learned is kept. Adapt again to go on, or use it as it is (Jobs)."
                )
            elif job.state == "finished":
                took = time_in_words(job.ended - job.started) if job.ended and job.started else ""
                text = f"{in_words(job.kind)} finished: {job.done} frames{f' in {took}' if took else ''}."
            elif job.state == "cancelled":
                text = f"{in_words(job.kind)} cancelled after {job.done} frames."
        set_role(self.adapt, "main" if job is not None and job.not_adapted else "")
        self.said.setText(text)
        self.said.setVisible(bool(text))

    def _cancel(self) -> None:
        job = next((r for r in self._control.jobs.rows if r.own and r.live), None)
        if job is not None:
            self._control.jobs.cancel(job.job_id)


def _tick(box: QtWidgets.QCheckBox, on: bool) -> None:
    """Tick a box without telling anybody."""
    box.blockSignals(True)
    box.setChecked(on)
    box.blockSignals(False)
