"""Render, jobs, models and server: what they show, and what their buttons ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtTest import QTest

from host_bridge import messages as m
from host_bridge.errors import EffectError, ModelError, ShotError
from host_bridge.jobspec import JobSpec, PlateSpec
from panels.controller import JobRow, LicenceQuestion, ModelImport
from panels.qt import Qt, QtGui, QtWidgets
from tests.inference_server.staged import DESCRIPTOR
from tests.panels.views.conftest import Table
from tests.panels.views.test_choose import card


def press(button: QtWidgets.QAbstractButton) -> None:
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)


def test_render_settings_are_written_and_what_is_in_the_way_is_told(table: Table) -> None:
    table.effects("look")
    table.plate()
    table.show().show_page(3)
    page = table.window.render_page
    assert not page.submit.isEnabled()
    assert "Say where the frames go" in page.problems.text()
    page.output.setFocus()
    QTest.keyClicks(page.output, "/tmp/out/x.%04d.exr")
    QTest.keyClick(page.output, Qt.Key.Key_Return)
    QTest.keyClicks(page.frames, "1001-1004")
    QTest.keyClick(page.frames, Qt.Key.Key_Return)
    page.channels["lips"].setChecked(True)
    page.switches["skip_existing"].setChecked(True)
    settings = table.control.render.settings
    assert (settings.output, settings.frames) == ("/tmp/out/x.%04d.exr", "1001-1004")
    assert settings.matte_channels == ("lips",)
    assert settings.skip_existing
    assert "Say where the frames go" not in page.problems.text()
    table.control.render.set(frames="1001-")
    assert "1001-1100" in page.problems.text()


def test_a_render_is_submitted_to_the_chosen_farm(table: Table, tmp_path: Path) -> None:
    table.effects("look")
    table.plate()
    table.show().show_page(3)
    page = table.window.render_page
    assert not page.farm.submit.isEnabled()
    table.control.render.set(output=str(tmp_path / "x.%04d.exr"))
    farm = page.farm
    farm.farm.show_value("deadline")
    farm.chunk.show_value(7)
    for field, text in ((farm.pool, "comp"), (farm.priority, "60")):
        field.setFocus()
        QTest.keyClicks(field, text)
    farm.only.setChecked(True)
    press(farm.submit)
    table.desk.wait(lambda: not table.control.render.preparing)
    (info,) = tmp_path.glob(".faceplate/*/render_job_info.txt")
    for line in ("Frames=1001-1020", "ChunkSize=7", "Pool=comp", "Priority=60"):
        assert f"{line}\n" in info.read_text()


@pytest.fixture
def jobs(table: Table) -> Table:
    error = EffectError("effect.failed", "the crop is empty", remedy="Widen the padding.", frame=1003)
    table.control.jobs.rows = (
        JobRow("a" * 32, "render", "look", "running", stage="render", stage_done=5, stage_total=10, total=10, own=True),
        JobRow("b" * 32, "render", "look", "failed", done=2, failed=1, total=10, error=error, started=1.0, ended=9.0),
        JobRow("c" * 32, "analyse", "", "queued", ahead=2),
    )
    table.show().show_page(4)
    return table


def test_a_failed_job_says_what_to_do_and_can_be_resumed(jobs: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    page = jobs.window.jobs
    asked: list[str] = []
    monkeypatch.setattr(jobs.control.jobs, "resume", asked.append)
    monkeypatch.setattr(jobs.control.jobs, "cancel", asked.append)
    texts = [[item.text(c) for c in range(3)] for item in (page.list.topLevelItem(i) for i in range(3)) if item]
    assert texts[0] == ["Look", "Running", "Render 5/10"]
    assert texts[1] == ["Look", "Failed", "2/10, 1 failed"]
    assert texts[2] == ["Analyse", "Queued, 2 before it", ""]
    assert page.cancel.isEnabled()
    assert not page.resume.isEnabled()
    press(page.cancel)
    page.list.setCurrentItem(page.list.topLevelItem(1))  # type: ignore[arg-type]
    assert page.remedy.text() == "Widen the padding."
    assert not page.cancel.isEnabled()
    press(page.resume)
    assert asked == ["a" * 32, "b" * 32]


def test_the_selection_stays_with_its_job_and_a_new_own_job_takes_it(jobs: Table) -> None:
    page, control = jobs.window.jobs, jobs.control.jobs
    page.list.setCurrentItem(page.list.topLevelItem(1))  # type: ignore[arg-type]
    control.rows = (JobRow("d" * 32, "render", "retouch", "queued"), *control.rows)
    control.changed.emit()
    current = page.current()
    assert current is not None
    assert current.job_id == "b" * 32
    control.rows = (JobRow("e" * 32, "render", "retouch", "sending", own=True), *control.rows)
    control.changed.emit()
    current = page.current()
    assert current is not None
    assert current.job_id == "e" * 32


def test_a_shot_is_adapted_from_the_render_page(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    table.effects("staged", DESCRIPTOR)
    table.plate()
    table.control.values.set("iterations", 12)
    table.show().show_page(3)
    page = table.window.render_page
    sent: list[JobSpec] = []

    def submit(spec: JobSpec, *, priority: int = 0) -> str:
        sent.append(spec)
        return "f" * 32

    monkeypatch.setattr(table.control.jobs, "submit", submit)
    assert page.adapt.isVisible()
    assert page.adapt.isEnabled()  # no output is needed
    press(page.adapt)
    assert (sent[0].kind, sent[0].effect, sent[0].output) == ("adapt", "staged", "")
    assert sent[0].params["iterations"] == 12
    refused = ShotError("shot.not_adapted", "the step adapt has not been taken", remedy="Run: faceplate adapt")
    table.control.jobs.rows = (JobRow("a" * 32, "render", "staged", "failed", error=refused, own=True),)
    table.control.jobs.changed.emit()
    assert "has not been taken" in page.said.text()
    assert page.adapt.property("role") == "main"
    table.control.effects.choose("look")
    assert not page.adapt.isVisible()


def test_an_adaptation_shows_its_loss_and_picture_and_is_used_as_it_is(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, sent = table.control.jobs, list[JobSpec]()
    spec = JobSpec("render", PlateSpec("sh.%04d.exr"), effect="staged", params={"iterations": 12}, output="o.%04d.exr")
    refused = ShotError("shot.not_adapted", "the step adapt has not been taken", remedy="Run: faceplate adapt")
    running, stopped, failed = "a" * 32, "b" * 32, "c" * 32
    control._specs = {failed: spec, stopped: replace(spec, kind="adapt", output=""), running: spec}
    control.rows = (
        JobRow(running, "adapt", "staged", "running", own=True),
        JobRow(stopped, "adapt", "staged", "cancelled", stage="adapt", stage_done=5, stage_total=12, own=True),
        JobRow(failed, "render", "staged", "failed", error=refused, own=True),
    )
    table.show().show_page(4)
    page = table.window.jobs

    def submit(spec: JobSpec, *, priority: int = 0) -> str:
        sent.append(spec)
        return "d" * 32

    monkeypatch.setattr(control, "submit", submit)
    assert not page.picture.isVisible()
    path = tmp_path / "preview.png"
    for colour in (Qt.GlobalColor.red, Qt.GlobalColor.blue):  # the file is written again as it gets better
        image = QtGui.QImage(64, 32, QtGui.QImage.Format.Format_RGB888)
        image.fill(colour)
        assert image.save(str(path))
        control._event(m.JobProgress(running, 1, "adapt", 4, 12, "loss 0.2500", str(path)))
        table.desk.wait(page.picture.isVisible)
        table.desk.spin()
        assert page.picture.pixmap().toImage().pixelColor(3, 3) == QtGui.QColor(colour)
    assert "loss 0.2500" in page.text.text()
    item = page.list.topLevelItem(0)
    assert item is not None
    assert [item.text(c) for c in range(3)] == ["Adapt staged", "Running", "Adapt 4/12"]
    assert page.cancel.isEnabled()
    assert not page.accept.isVisible()
    page.list.setCurrentItem(page.list.topLevelItem(1))  # type: ignore[arg-type]
    assert not page.picture.isVisible()
    press(page.accept)
    page.list.setCurrentItem(page.list.topLevelItem(2))  # type: ignore[arg-type]
    assert not page.accept.isVisible()
    press(page.adapt)
    assert [(s.kind, s.accept, s.output, s.params) for s in sent] == [
        ("adapt", True, "", {"iterations": 12}),
        ("adapt", False, "", {"iterations": 12}),
    ]


def test_models_are_searched_and_imports_are_followed(table: Table) -> None:
    table.control.models.cards = (card("net-a", present=True), card("other", present=False))
    table.control.models.imports = (ModelImport("/x/net.pt", "net-a", "running", 0.4, "reading", None),)
    table.show().show_page(5)
    page = table.window.models

    def left() -> list[str]:
        items = [page.list.topLevelItem(i) for i in range(2)]
        return [item.text(0) for item in items if item is not None and not item.isHidden()]

    QTest.keyClicks(page.search, "other")
    assert left() == ["Model other"]
    page.search.clear()
    press(page.present_only)
    assert left() == ["Model net-a"]
    assert page.progress.value() == 40
    failed = ModelError("model.damaged", "the file ends early", remedy="Download it again.")
    table.control.models.imports = (ModelImport("/x/net.pt", "net-a", "failed", 0.4, "", failed),)
    table.control.models.changed.emit()
    assert "Download it again." in page.imported.text()
    assert not page.progress.isVisible()


@pytest.mark.parametrize(("words", "answer"), [("Accept and import", "accept"), ("Do not import", "decline")])
def test_a_licence_is_put_before_the_artist(
    table: Table, monkeypatch: pytest.MonkeyPatch, words: str, answer: str
) -> None:
    models = table.control.models
    said: list[str] = []
    for name in ("accept", "decline"):
        monkeypatch.setattr(models, name, lambda name=name: said.append(name))
    models.cards = (card("net-b", present=False, commercial=False),)
    table.show()
    error = ModelError("model.licence", "S-Lab forbids commercial use", remedy="Accept it.")
    models.question = LicenceQuestion("/x/net.pt", "net-b", error)
    models.changed.emit()
    models.changed.emit()
    boxes = table.window.findChildren(QtWidgets.QMessageBox)
    assert len(boxes) == 1
    assert "forbids commercial use" in boxes[0].text()
    assert "research only" in boxes[0].informativeText()
    default = boxes[0].defaultButton()
    assert default is not None
    assert default.text() == "Do not import"
    press(next(b for b in boxes[0].buttons() if b.text() == words))
    assert said == [answer]
    models.question = None
    models.changed.emit()
    table.desk.spin()


def test_devices_with_memory_and_what_they_load(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    connection, server = table.control.connection, table.control.server
    connection.state = replace(connection.state, link="ready", server="faceplate 1", endpoint="tcp://x:1")
    busy = m.DeviceStatus("cuda:0", "busy", name="NVIDIA X", memory_used=4_000_000_000, memory_total=8_000_000_000)
    loading = replace(busy, activity="loading vtoonify-d", activity_done=0.5)
    server.status = m.Pong(queued=3, running=1, devices=[loading, m.DeviceStatus("cpu", "idle")])
    table.plate()
    table.show().show_page(6)
    page = table.window.server
    assert page.queue.text() == "1 job running, 3 waiting"
    assert [box.name.text() for box in page.devices] == ["NVIDIA X", "cpu"]
    assert page.devices[0].memory.text() == "4.0 GB of 8.0 GB"
    assert page.devices[0].memory.value() == 500
    assert page.devices[0].activity.text() == "Loading vtoonify-d  50 %"
    assert not page.devices[1].memory.isVisible()
    server.status = m.Pong(devices=[busy])
    server.changed.emit()
    assert len(page.devices) == 1
    asked: list[str] = []
    monkeypatch.setattr(connection, "connect_to", asked.append)
    QTest.keyClicks(page.address, "tcp://render1:5555")
    press(page.connect_to)
    assert asked == ["tcp://render1:5555"]
