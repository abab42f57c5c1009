"""The main job from the panel: analyse, correct, render, cancel, resume; with the host's part in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from host_bridge import launcher
from host_bridge.errors import HostError
from host_bridge.farm import FarmOptions
from host_bridge.farm.jobfile import read_job
from host_bridge.framerange import format_frames
from host_bridge.hosts.base import HostShot
from host_bridge.jobspec import JobSpec, PlateSpec
from panels.bridge import Bridge
from panels.controller import Controller, JobRow
from tests.panels.conftest import COLORSPACE, Desk, Studio


def _ended(desk: Desk, control: Controller, kind: str) -> JobRow:
    desk.wait(lambda: any(row.kind == kind and row.own and not row.live for row in control.jobs.rows))
    return next(row for row in control.jobs.rows if row.kind == kind and row.own)


def test_analyse_correct_render(desk: Desk, studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path) -> None:
    control = open_panel(plate=studio.plate("corrected", seed=21)).controller
    faces = control.faces
    faces.watch(True)
    desk.wait(lambda: faces.views)
    assert faces.state.found is not None
    assert faces.state.found.shot == ""
    faces.apply()  # nothing to keep them with yet
    assert control.notices.kept[0].error is not None
    assert control.notices.kept[0].error.code == "panel.input"

    control.render.analyse()
    assert _ended(desk, control, "analyse").state == "finished"
    desk.wait(lambda: faces.state.found is not None and faces.state.found.shot)
    desk.wait(lambda: control.preview.state.result is not None and control.preview.state.result.final)
    (face,) = faces.views
    assert face.chosen
    assert face.enabled
    assert len(face.points) == 478
    x0, y0, x1, y1 = face.box
    assert 0 < x0 < x1 < 144

    region = face.region
    control.values.set("padding_right", 80.0)
    desk.wait(lambda: faces.views[0].region != region)  # the crop follows its padding
    control.values.reset("padding_right")
    desk.wait(lambda: faces.views[0].region == region and control.preview.idle)

    assert not faces.dirty
    before = control.preview.state.result
    tip = face.points[4]
    for step in range(1, 6):
        faces.move_point(face.track, 4, (tip[0] + 2.0 * step, tip[1]), reach=3.0, dragging=True)
    faces.release()
    assert faces.dirty
    assert faces.views[0].moved == {4: (tip[0] + 10.0, tip[1])}
    control.history.undo()  # the drag was one step
    assert not faces.dirty
    control.history.redo()
    faces.move_box(face.track, (x0 - 2, y0 - 2, x1, y1))
    assert faces.views[0].box == (x0 - 2, y0 - 2, x1, y1)
    assert faces.correction_frames(face.track) == (1001,)
    faces.apply()
    assert faces.state.applying
    assert _ended(desk, control, "repair").state == "finished"
    desk.wait(lambda: not faces.state.applying and faces.state.found is not None and not faces.state.loading)
    assert not faces.dirty
    assert faces.views[0].points[4] == pytest.approx((tip[0] + 10.0, tip[1]), abs=0.51)
    desk.wait(lambda: control.preview.idle and control.preview.state.result is not None)
    desk.wait(lambda: control.preview.state.result != before)  # previews follow

    other = open_panel(plate=control.plate.state.spec.pattern).controller  # a panel opened tomorrow goes on from there
    other.faces.watch(True)
    desk.wait(lambda: other.faces.state.found)
    assert other.faces.corrections == faces.corrections
    assert not other.faces.dirty
    assert other.history.undo_label == ""

    output = str(tmp_path / "out" / "o.%04d.exr")
    control.render.set(output=output, frames="1002-1004")
    assert control.render.problems() == ()
    control.render.render()
    row = _ended(desk, control, "render")
    assert (row.state, row.done, row.failed, row.fraction) == ("finished", 3, 0, 1.0)
    assert control.jobs.folder(row.job_id) == str(tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"o.{f}.exr" for f in (1002, 1003, 1004)]
    desk.wait(lambda: other.jobs.refresh() or other.jobs.find(row.job_id))
    seen: list[object] = []
    other.jobs.details(row.job_id, seen.append)
    desk.wait(lambda: seen)
    assert isinstance(seen[0], JobRow)
    assert seen[0].output == output
    assert not seen[0].own


def test_cancel_and_resume(desk: Desk, studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path) -> None:
    control = open_panel(plate=studio.plate("cancelled", seed=22)).controller
    watcher = open_panel(connect="attach").controller
    desk.wait(lambda: control.plate.state.found and watcher.connection.ready)
    control.render.set(output=str(tmp_path / "o.%04d.exr"))
    control.render.render()
    job_id = control.jobs.rows[0].job_id
    assert control.jobs.rows[0].state == "sending"
    control.jobs.cancel(job_id)
    assert control.jobs.rows[0].cancelling
    assert _ended(desk, control, "render").state == "cancelled"
    desk.wait(lambda: watcher.jobs.refresh() or watcher.jobs.find(job_id))
    watcher.jobs.resume(job_id)  # by somebody else
    desk.wait(lambda: watcher.jobs.find(job_id).state == "finished")  # type: ignore[union-attr]
    desk.wait(lambda: control.jobs.refresh() or control.jobs.find(job_id).state == "finished")  # type: ignore[union-attr]
    assert len(list(tmp_path.glob("o.*.exr"))) == 6
    control.jobs.cancel(job_id)  # too late
    desk.wait(lambda: not control.jobs.find(job_id).cancelling)  # type: ignore[union-attr]
    control.jobs.resume("0" * 32)
    desk.wait(lambda: control.notices.kept)
    assert control.notices.kept[0].error is not None
    assert control.notices.kept[0].error.code == "job.unknown"


def test_a_job_that_fails_says_why_on_its_row_and_in_a_notice(
    desk: Desk, studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path
) -> None:
    pattern = studio.plate("broken", seed=23)
    control = open_panel(plate=pattern).controller
    desk.wait(lambda: control.plate.state.found)
    Path(pattern % 1003).write_bytes(b"not a picture")
    control.render.set(output=str(tmp_path / "o.%04d.exr"))
    control.render.render()
    row = _ended(desk, control, "render")
    assert row.state == "failed"
    assert row.error is not None
    assert row.error.remedy
    assert control.notices.kept[0].error is not None
    assert control.notices.kept[0].error.code == row.error.code
    assert "1003" in str(row.error)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"output": ""}, "panel.input"),
        ({"output": "{plate}"}, "job.output_is_input"),
        ({"output": "/tmp/one.exr"}, "request.bad_value"),
        ({"output": "/tmp/o.%04d.exr", "frames": "1001-"}, "request.frame_range"),
        ({"output": "/tmp/o.%04d.exr", "frames": "1001-1020"}, "request.frame_range"),
        ({"output": "/tmp/o.%04d.exr", "matte_output": "/tmp/m.exr"}, "request.bad_value"),
    ],
)
def test_what_is_in_the_way_is_said_before_it_is_sent(
    desk: Desk, open_panel: Callable[..., Bridge], plate: str, settings: dict[str, str], code: str
) -> None:
    control = open_panel(plate=plate).controller
    desk.wait(lambda: control.plate.state.found and control.effects.current)
    control.render.set(**{k: v.format(plate=plate) for k, v in settings.items()})
    (problem,) = control.render.problems()
    assert problem.code == code
    assert problem.remedy
    control.render.render()
    assert not any(row.own for row in control.jobs.rows)
    assert control.notices.kept[0].error is problem or control.notices.kept[0].error.code == code  # type: ignore[union-attr]


def test_a_render_is_handed_to_a_farm(
    desk: Desk, open_panel: Callable[..., Bridge], plate: str, tmp_path: Path
) -> None:
    control = open_panel(plate=plate).controller
    control.render.submit("openjd", FarmOptions(write_only=True))  # nothing is chosen yet
    assert control.notices.kept[0].error is not None
    desk.wait(lambda: control.plate.state.found and not control.render.settings.output)
    control.render.set(output=str(tmp_path / "o.%04d.exr"))
    desk.wait(lambda: control.effects.current)
    before = len(control.notices.kept)
    control.render.submit("openjd", FarmOptions(chunk=4, write_only=True))
    assert control.render.preparing
    desk.wait(lambda: not control.render.preparing)
    assert len(control.notices.kept) > before
    (folder,) = (tmp_path / ".faceplate").iterdir()
    job = read_job(folder / "job.json").job
    assert (job.kind, job.frames) == ("render", format_frames(control.plate.state.numbers))
    assert (folder / "template.json").is_file()


def test_an_output_is_suggested_beside_the_plate(desk: Desk, open_panel: Callable[..., Bridge], plate: str) -> None:
    control = open_panel(plate=plate).controller
    desk.wait(lambda: control.effects.current)
    folder = Path(plate).parent.parent
    assert control.render.suggest_output() == str(folder / "shot_look" / "shot_look.%04d.exr")
    control.render.set(output=control.render.suggest_output())
    assert control.render.problems() == ()


class FakeHost:
    """A host with one clip: it remembers what it was asked to do."""

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self.kept: list[JobSpec] = []
        self.imported: list[JobSpec] = []
        self.frames: list[int] = []
        self.selected = True

    @property
    def name(self) -> str:
        return "Host 1.0"

    def shot(self) -> HostShot:
        if not self.selected:
            raise HostError("host.no_source", "nothing is selected", remedy="Select a clip.")
        return HostShot("clip7", self.job, 1003, note="the plate is written first")

    def go_to(self, frame: int) -> None:
        self.frames.append(frame)

    def keep(self, job: JobSpec) -> None:
        self.kept.append(job)

    def prepare(self, job: JobSpec) -> JobSpec:
        return replace(job, skip_existing=True)

    def import_result(self, job: JobSpec) -> str:
        self.imported.append(job)
        return "Read7"


def test_a_host_gives_the_plate_keeps_the_values_and_shows_the_result(
    desk: Desk, studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path
) -> None:
    job = JobSpec(
        "render",
        PlateSpec(studio.plate("hosted", seed=24), COLORSPACE),
        effect="look",
        params={"style": "pencil", "degree": {"keys": [[1001, 0.0], [1006, 1.0]]}},
        frames="1003",
        output=str(tmp_path / "o.%04d.exr"),
        face="largest",
    )
    host = FakeHost(job)
    control = open_panel(host, effect="").controller
    desk.wait(lambda: control.plate.state.found and control.values.params)
    desk.wait(lambda: control.values.touched("style"))
    assert control.plate.frame == 1003
    assert control.values.value("degree") == pytest.approx(0.4)
    assert control.history.undo_label == ""
    assert control.notices.kept[0].text == "the plate is written first"
    assert control.render.settings.frames == "1003"
    control.values.set("style", "cartoon")
    desk.wait(lambda: host.kept)
    assert host.kept[0].params["style"] == "cartoon"
    assert len(host.kept) == 1  # what came from the host is not stored there again
    control.show_frame_in_host()
    desk.wait(lambda: host.frames == [1003])
    control.render.render()
    desk.wait(lambda: host.imported)
    assert host.imported[0].skip_existing  # the job as it was prepared
    assert host.imported[0].output == job.output
    desk.wait(lambda: any(n.text == "Read7 shows the result." for n in control.notices.kept))
    host.selected = False
    control.take_from_host()
    desk.wait(lambda: control.notices.kept[0].text == "nothing is selected")
    assert control.notices.kept[0].remedy == "Select a clip."
    assert launcher.status()["pong"]["running"] == 0


def test_a_plate_that_the_host_has_yet_to_write_is_not_in_the_way(
    desk: Desk, studio: Studio, open_panel: Callable[..., Bridge], tmp_path: Path
) -> None:
    written = Path(studio.plate("written", seed=25))

    class Writer(FakeHost):
        def prepare(self, job: JobSpec) -> JobSpec:
            shutil.copytree(written.parent, tmp_path / "precomp")
            return job

    plate = PlateSpec(str(tmp_path / "precomp" / written.name), COLORSPACE)
    host = Writer(JobSpec("render", plate, effect="look", frames="1003", output=str(tmp_path / "out" / "o.%04d.exr")))
    control = open_panel(host, effect="").controller
    desk.wait(lambda: control.plate.state.error is not None and control.values.params)
    assert control.plate.state.error.code == "plate.no_frames"
    assert control.render.problems() == ()
    control.render.render()
    desk.wait(lambda: host.imported)
    desk.wait(lambda: control.plate.state.error is None and control.plate.state.found)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["o.1003.exr"]
