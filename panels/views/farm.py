"""Farm: hand the render to a farm instead of the server at hand."""

from __future__ import annotations

from host_bridge.farm import FARMS, FarmOptions
from panels import style
from panels.controller import Controller
from panels.qt import QtWidgets
from panels.views.fields import Choice, TextField
from panels.views.numbers import NumberField
from panels.views.parts import Labelled, push


class FarmBox(QtWidgets.QWidget):
    """Which farm, how many frames to a task, and the farm's own names. The shot is analysed once, as everywhere."""

    def __init__(self, controller: Controller, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._render = controller.render
        fields = Labelled()
        self.farm = Choice()
        self.farm.show_names(tuple(FARMS), tuple(dialect.title for dialect in FARMS.values()))
        self.farm.show_value(next(iter(FARMS)))
        fields.add("Farm", self.farm, tip="What the submission is written for")
        self.chunk = NumberField(1, 10000, whole=True)
        self.chunk.show_value(FarmOptions.chunk)
        fields.add("Chunk size", self.chunk, tip="Frames of one task; a chunk equals the whole render")
        self.priority = TextField("the farm's default")
        fields.add("Priority", self.priority, tip="On the farm's own scale, a whole number")
        self.pool = TextField()
        fields.add("Pool", self.pool, tip="Deadline: pool; OpenCue: tag of the hosts")
        self.group = TextField()
        fields.add("Group", self.group, tip="Deadline: group")
        self.only = QtWidgets.QCheckBox("Only write the submission")
        self.only.setToolTip("Beside the output, in .faceplate; nothing is submitted")
        self.submit = push("Submit to farm", "Hand the render to the farm", self._submit)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(style.GAP)
        column.addLayout(fields)
        column.addWidget(self.only)
        column.addWidget(self.submit)

    def _submit(self) -> None:
        priority = self.priority.text().strip()
        options = FarmOptions(
            chunk=int(self.chunk.value()),
            priority=int(priority) if priority.isdigit() else FarmOptions.priority,
            pool=self.pool.text().strip(),
            group=self.group.text().strip(),
            write_only=self.only.isChecked(),
        )
        self._render.submit(str(self.farm.currentData()), options)
