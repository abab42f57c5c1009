"""Jobs: what runs, waits and has ended; cancel, resume, errors with their remedy, the folder of the result.

Of an adaptation also how it looks so far, and the choice to use what a stopped one has learned.
"""

from __future__ import annotations

import os
import time

from host_bridge.errors import FaceplateError
from panels import style
from panels.bridge import Bridge
from panels.controller import JobRow
from panels.qt import ModelIndex, QtCore, QtGui, QtWidgets
from panels.views.fields import in_words
from panels.views.parts import ADAPT, ADAPT_TIP, Flow, Page, items_of, label, push, set_role, time_in_words, told

_JOB = QtCore.Qt.ItemDataRole.UserRole
_SHARE = QtCore.Qt.ItemDataRole(int(QtCore.Qt.ItemDataRole.UserRole) + 1)
_TINTS = {"finished": style.GOOD, "failed": style.BAD, "refused": style.BAD, "running": style.ACCENT}


class _Bar(QtWidgets.QStyledItemDelegate):
    """Draws a share of 0..1 as a bar behind the cell's text."""

    def paint(self, painter: QtGui.QPainter, option: QtWidgets.QStyleOptionViewItem, index: ModelIndex) -> None:
        share = index.data(_SHARE)
        rect: QtCore.QRect = option.rect
        if isinstance(share, float) and share > 0:
            inside = rect.adjusted(1, 2, -1, -2)
            painter.fillRect(inside, style.color(style.LINE))
            inside.setWidth(round(inside.width() * min(1.0, share)))
            painter.fillRect(inside, style.color(style.SELECTED))
        super().paint(painter, option, index)


class Thumbnail(QtWidgets.QLabel):
    """A picture file, small; hidden where there is none here (the server may see other disks)."""

    def __init__(self) -> None:
        super().__init__()
        self.setAccessibleName("How it looks so far")
        self._shown: tuple[str, int] = ("", 0)
        self.there = False  # whether there is something to see
        self.hide()

    def show_file(self, path: str) -> None:
        """Show a file as it is now; it is read again only when it has been written again."""
        try:
            wanted = (path, os.stat(path).st_mtime_ns if path else 0)
        except OSError:  # not on this machine, or cleared away with the run
            wanted = ("", 0)
        if wanted == self._shown:
            return
        self._shown = wanted
        picture = QtGui.QPixmap(wanted[0]) if wanted[0] else QtGui.QPixmap()
        if not picture.isNull():
            edge = 16 * style.em(self)
            smooth = QtCore.Qt.TransformationMode.SmoothTransformation
            picture = picture.scaled(2 * edge, edge, QtCore.Qt.AspectRatioMode.KeepAspectRatio, smooth)
        self.there = not picture.isNull()
        self.setPixmap(picture)
        self.setVisible(self.there)


class JobsPage(Page):
    """The list, and what is to be known of the job that is selected."""

    def __init__(self, bridge: Bridge, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._jobs = bridge.controller.jobs
        self._render = bridge.controller.render
        self._details: dict[str, JobRow] = {}
        self.list = QtWidgets.QTreeWidget()
        self.list.setHeaderLabels(["Job", "State", "Progress"])
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setAlternatingRowColors(True)
        self.list.setAccessibleName("Jobs")
        self.list.setItemDelegateForColumn(2, _Bar(self.list))
        self.list.currentItemChanged.connect(lambda *_: self._select())
        self.empty = label("No jobs yet. Render something on the page Render.", "dim", wrap=True)
        self.title = label(role="head", wrap=True)
        self.text = label(wrap=True)
        self.remedy = label(role="warn", wrap=True)
        self.picture = Thumbnail()
        self.adapt = push(ADAPT, ADAPT_TIP, self._adapt)
        self.accept = push("Use as it is", "Take the best that was learned until it was stopped", self._accept)
        self.show_picture = push("Show picture", "Open how it looks so far in the picture viewer", self._show_picture)
        self.cancel = push("Cancel", "End the job before its next frame; finished frames stay", self._cancel)
        self.resume = push("Resume", "Queue it again; frames that are finished and valid are kept", self._resume)
        self.open = push("Open folder", "Show the frames in the file browser", self._open)
        self.again = push("Refresh", "Ask the server for the newest jobs", self._jobs.refresh)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(style.MARGIN, style.MARGIN, style.MARGIN, style.MARGIN)
        column.setSpacing(style.GAP)
        column.addWidget(self.list, 1)
        for widget in (self.empty, self.title, self.text, self.remedy, self.picture):
            column.addWidget(widget)
        buttons = Flow()
        for button in (
            self.adapt,
            self.cancel,
            self.resume,
            self.accept,
            self.show_picture,
            self.open,
            self.again,
        ):
            buttons.add(button)
        column.addWidget(buttons)
        bridge.jobs_changed.connect(self.changed)

    def refresh(self) -> None:
        """Show the newest rows; the selection stays with its job."""
        rows = self._jobs.rows
        known = {str(item.data(0, _JOB)): item for item in items_of(self.list)}
        self.list.blockSignals(True)
        if list(known) != [row.job_id for row in rows]:
            current = self.list.currentItem()
            selected = str(current.data(0, _JOB)) if current is not None else ""
            if rows and rows[0].own and rows[0].job_id not in known:
                selected = rows[0].job_id  # just submitted
            self.list.clear()
            known = {}
            for row in rows:
                item = QtWidgets.QTreeWidgetItem()
                item.setData(0, _JOB, row.job_id)
                self.list.addTopLevelItem(item)
                known[row.job_id] = item
                if row.job_id == selected:
                    self.list.setCurrentItem(item)
        for row in rows:
            _fill(known[row.job_id], row)
        if self.list.currentItem() is None and rows:
            self.list.setCurrentItem(known[rows[0].job_id])
        self.list.blockSignals(False)
        for column in (0, 1):
            self.list.resizeColumnToContents(column)
        self.list.setVisible(bool(rows))
        self.empty.setVisible(not rows)
        self.empty.setText(told(self._jobs.error) if self._jobs.error else "No jobs yet.")
        set_role(self.empty, "bad" if self._jobs.error else "dim")
        self._show()

    def current(self) -> JobRow | None:
        """The selected job."""
        item = self.list.currentItem()
        return self._jobs.find(str(item.data(0, _JOB))) if item is not None else None

    # inside

    def _select(self) -> None:
        job = self.current()
        if job is not None and not job.live and job.job_id not in self._details:
            self._jobs.details(job.job_id, self._told)
        self._show()

    def _told(self, outcome: JobRow | FaceplateError) -> None:
        """What the server remembers of a job that this panel did not follow."""
        if isinstance(outcome, JobRow):
            self._details[outcome.job_id] = outcome
        self._show()

    def _show(self) -> None:
        job = self.current()
        for widget in (self.title, self.text, self.remedy, self.cancel, self.resume, self.open):
            widget.setVisible(job is not None)
        self.picture.show_file(job.picture if job is not None else "")
        self.show_picture.setVisible(self.picture.there)
        adaptable = job is not None and self._jobs.adapting(job.job_id) is not None
        self.adapt.setVisible(adaptable and job is not None and job.not_adapted)
        self.accept.setVisible(adaptable and job is not None and job.acceptable)
        if job is None:
            return
        known = self._details.get(job.job_id, job) if not job.live else job
        self.title.setText(f"{in_words(job.kind)} {job.effect}  {job.job_id[:8]}")
        lines = [known.output] if known.output else []
        if job.note:
            lines.append(job.note)
        lines.extend(known.warnings)
        lines.extend(told(f).replace("\n", " ") for f in known.failures[:8])
        if len(known.failures) > 8:
            lines.append(f"and {len(known.failures) - 8} more frames that failed")
        if job.error is not None:
            lines.append(job.error.message)
        self.text.setText("\n".join(lines))
        self.text.setVisible(bool(lines))
        self.remedy.setText(job.error.remedy if job.error is not None else "")
        self.remedy.setVisible(job.error is not None)
        self.cancel.setEnabled(job.live and not job.cancelling)
        self.resume.setEnabled(job.state in ("failed", "cancelled"))
        self.open.setEnabled(bool(self._jobs.folder(job.job_id)))

    def _cancel(self) -> None:
        job = self.current()
        if job is not None:
            self._jobs.cancel(job.job_id)

    def _resume(self) -> None:
        job = self.current()
        if job is not None:
            self._details.pop(job.job_id, None)
            self._jobs.resume(job.job_id)

    def _adapt(self) -> None:
        job = self.current()
        if job is not None:
            self._render.adapt_as(job.job_id)

    def _accept(self) -> None:
        job = self.current()
        if job is not None:
            self._render.adapt_as(job.job_id, accept=True)

    def _show_picture(self) -> None:
        job = self.current()
        if job is not None and job.picture:
            QtGui.QDesktopServices.openUrl(QtCore.QUrl.fromLocalFile(job.picture))

    def _open(self) -> None:
        job = self.current()
        folder = self._jobs.folder(job.job_id) if job is not None else ""
        if folder:
            QtGui.QDesktopServices.openUrl(QtCore.QUrl.fromLocalFile(folder))


def _fill(item: QtWidgets.QTreeWidgetItem, row: JobRow) -> None:
    name = row.effect if row.kind == "render" else f"{in_words(row.kind)} {row.effect}".strip()
    texts = (in_words(name), _state(row), _progress(row))
    for column, text in enumerate(texts):
        if item.text(column) != text:
            item.setText(column, text)
    item.setData(2, _SHARE, row.fraction if row.live else 0.0)
    item.setForeground(1, QtGui.QBrush(style.color(_TINTS.get(row.state, style.TEXT))))
    item.setToolTip(0, row.job_id)


def _state(row: JobRow) -> str:
    if row.cancelling:
        return "Cancelling"
    if row.state == "queued" and row.ahead:
        return f"Queued, {row.ahead} before it"
    return in_words(row.state)


def _progress(row: JobRow) -> str:
    if row.state == "running":
        left = row.seconds_left(time.time())
        stage = f"{in_words(row.stage)} {row.stage_done}/{row.stage_total}" if row.stage_total else in_words(row.stage)
        return f"{stage}, {time_in_words(left)} left" if left is not None else stage
    if not row.total:
        return ""
    if row.kind == "adapt":
        return ""
    if row.kind != "render":
        return f"{row.total} frames" if row.state == "finished" else ""
    failed = f", {row.failed} failed" if row.failed else ""
    return f"{row.done}/{row.total}{failed}"
