"""The plate bar: which sequence, where it comes from, and, unfolded, how it is read, mask and style picture."""

from __future__ import annotations

from host_bridge.jobspec import MASK_MODES, MISSING_POLICIES, PREMULT_MODES, MaskSpec
from panels import style
from panels.bridge import Bridge
from panels.qt import QtWidgets
from panels.views.fields import Choice, TextField, in_words
from panels.views.parts import Labelled, delete_on_close, label, push, tool

_FRAMES = "Frames (*.exr *.dpx *.tif *.tiff *.png);;All files (*)"
_PICTURES = "Pictures (*.exr *.png *.jpg *.jpeg *.tif *.tiff);;All files (*)"


class PlateBar(QtWidgets.QWidget):
    """One line, and what unfolds below it. Widgets for the end of the line are added to `line`."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._control = bridge.controller
        self._plate = bridge.controller.plate
        self.pattern = TextField("Plate: shots/sh010.%04d.exr")
        self.pattern.setAccessibleName("Plate")
        self.pattern.setToolTip("The plate as a pattern: sh010.%04d.exr, sh010.####.exr, or any one of its frames")
        self.pattern.committed.connect(self._plate.open)
        self.browse = tool("folder", "Choose a frame of the plate", self._browse)
        self.more = tool("settings", "How the plate is read, mask, style picture", checkable=True)
        self.more.toggled.connect(self._unfold)
        self.host = push("From host", "", bridge.controller.take_from_host)
        host = bridge.controller.host
        self.host.setVisible(host is not None)
        if host is not None:
            self.host.setText(f"From {host.name.split(' ')[0]}")
            self.host.setToolTip(f"Take what is selected in {host.name}: plate, frame, effect and values")
        self.line = QtWidgets.QHBoxLayout()
        self.line.setSpacing(style.GAP)
        for widget in (self.pattern, self.browse, self.more, self.host):
            self.line.addWidget(widget)
        self.line.setStretch(0, 1)
        self.folded = QtWidgets.QWidget()
        self.folded.setVisible(False)
        self._build(QtWidgets.QVBoxLayout(self.folded))
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, 2)
        column.setSpacing(style.GAP)
        column.addLayout(self.line)
        column.addWidget(self.folded)
        bridge.plate_changed.connect(self.refresh)
        bridge.effects_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show which plate it is and how it is read."""
        state = self._plate.state
        spec, found = state.spec, state.found
        self.pattern.show_value(spec.pattern)
        _offer(self.layer, found.layers if found else [], spec.layer)
        _offer(self.part, found.parts if found else [], spec.part)
        _offer(self.view, found.views if found else [], spec.view)
        self.premult.show_value(spec.premult)
        self.missing.show_value(spec.missing)
        self.ocio.show_value(state.ocio)
        self.ocio.setProperty("state", "bad" if state.color_error else "")
        self.ocio.setToolTip(str(state.color_error) if state.color_error else "OCIO config; empty: the server's own")
        mask = state.mask
        self.mask_pattern.show_value(mask.pattern if mask else "")
        self.channel.show_value(mask.channel if mask else "A")
        self.mode.show_value(mask.mode if mask else "intersect")
        self.channel.setEnabled(mask is not None)
        self.mode.setEnabled(mask is not None)
        self.style_image.show_value(state.style_image)
        current = self._control.effects.current
        takes = current is not None and any(clip.name == "Style" for clip in current.clips)
        self.style_image.setEnabled(takes)
        self.style_browse.setEnabled(takes)
        size = f"{found.width} x {found.height}, {found.frames}, {found.colorspace}" if found else ""
        if found is not None and found.pixel_aspect != 1.0:
            size += f", pixel aspect {found.pixel_aspect:g}"
        self.about.setText("Looking at the plate" if state.loading else size)

    # inside

    def _build(self, column: QtWidgets.QVBoxLayout) -> None:
        column.setContentsMargins(0, 2, 0, 4)
        self.about = label(role="dim", wrap=True)
        column.addWidget(self.about)
        fields = Labelled()
        column.addLayout(fields)
        plate = self._plate
        self.layer, self.part, self.view, self.premult, self.missing = (Choice() for _ in range(5))
        self.premult.show_names(PREMULT_MODES)
        self.missing.show_names(MISSING_POLICIES)
        for name, field, tip in (
            ("layer", self.layer, "Which channels are treated; the others pass through"),
            ("part", self.part, "Which part of a multi-part file is treated"),
            ("view", self.view, "Which eye is treated"),
        ):
            field.chosen.connect(lambda value, name=name: plate.set(**{name: value}))
            fields.add(in_words(name), field, tip=tip)
        self.premult.chosen.connect(lambda value: plate.set(premult=value))
        self.missing.chosen.connect(lambda value: plate.set(missing=value))
        fields.add("Premultiplied", self.premult, tip="Whether colour is multiplied by alpha")
        fields.add("Missing frames", self.missing, tip="What to do about holes: an error, hold the last one, or skip")
        self.ocio = TextField("the server's own")
        self.ocio.committed.connect(plate.set_ocio)
        fields.add("OCIO config", self.ocio, tool("folder", "Choose an OCIO config", self._browse_ocio))
        self.mask_pattern = TextField("none")
        self.mask_pattern.committed.connect(lambda _: self._set_mask())
        fields.add("Mask", self.mask_pattern, tool("folder", "Choose a frame of the mask", self._browse_mask))
        self.channel = TextField("A")
        self.channel.committed.connect(lambda _: self._set_mask())
        self.channel.setAccessibleName("Channel of the mask")
        self.mode = Choice(MASK_MODES)
        self.mode.setAccessibleName("How the mask is used")
        self.mode.chosen.connect(lambda _: self._set_mask())
        fields.add("Mask channel", self.channel, self.mode, tip="Channel, and how it is combined; subtract holds out")
        self.style_image = TextField("the style's own palette")
        self.style_image.committed.connect(plate.set_style_image)
        self.style_browse = tool("folder", "Choose a style picture", self._browse_style)
        fields.add("Style picture", self.style_image, self.style_browse, tip="The effect's clip Style, if it has one")

    def _unfold(self, wide: bool) -> None:
        self.folded.setVisible(wide)

    def _set_mask(self) -> None:
        pattern = self.mask_pattern.text().strip()
        mode = str(self.mode.currentData() or "intersect")
        self._plate.set_mask(MaskSpec(pattern, self.channel.text().strip() or "A", mode) if pattern else None)

    def _choose(self, title: str, start: str, filters: str) -> QtWidgets.QFileDialog:
        dialog = QtWidgets.QFileDialog(self.window(), title, start, filters)
        delete_on_close(dialog)
        dialog.setFileMode(QtWidgets.QFileDialog.FileMode.ExistingFile)
        return dialog

    def _browse(self) -> None:
        dialog = self._choose("Choose a frame of the plate", self._plate.state.spec.pattern, _FRAMES)
        dialog.fileSelected.connect(self._plate.open)
        dialog.open()

    def _browse_ocio(self) -> None:
        dialog = self._choose("Choose an OCIO config", self._plate.state.ocio, "OCIO (*.ocio *.ocioz);;All files (*)")
        dialog.fileSelected.connect(self._plate.set_ocio)
        dialog.open()

    def _browse_mask(self) -> None:
        dialog = self._choose("Choose a frame of the mask", self.mask_pattern.text(), _FRAMES)
        dialog.fileSelected.connect(self._take_mask)
        dialog.open()

    def _take_mask(self, path: str) -> None:
        self.mask_pattern.setText(path)
        self._set_mask()

    def _browse_style(self) -> None:
        dialog = self._choose("Choose a style picture", self._plate.state.style_image, _PICTURES)
        dialog.fileSelected.connect(self._plate.set_style_image)
        dialog.open()


def _offer(field: Choice, names: list[str], current: str) -> None:
    """Offer the first one and every name; one that is set and not there stays in sight."""
    offered = [name for name in names if name]
    if current and current not in offered:
        offered.append(current)
    first = f"first ({names[0] or 'RGBA'})" if names else "first"
    field.show_names(["", *offered], [first, *offered])
    field.show_value(current)
