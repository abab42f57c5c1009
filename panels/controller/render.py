"""Analyse and Render: output and range, what is missing before a job can be submitted, and the result in the host."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import Any

from host_bridge.errors import FaceplateError, JobError, PanelError, RequestError
from host_bridge.farm import FARMS, FarmOptions, Submission, submit
from host_bridge.framerange import format_frames
from host_bridge.hosts.base import Host
from host_bridge.jobspec import JobSpec
from host_bridge.paths import has_token, same_pattern
from panels.controller.jobs import Jobs
from panels.controller.notices import Notices
from panels.controller.observe import Errands, Topic
from panels.controller.plate import absolute
from panels.controller.ranges import frames_of
from panels.controller.work import Work

COMPRESSIONS = ("", "keep", "none", "rle", "zips", "zip", "piz", "pxr24", "b44", "b44a", "dwaa", "dwab")


@dataclass(frozen=True)
class RenderSettings:
    """`frames` "" = all on disk; `compression` "" = as read. `import_result`: the host shows the result when done."""

    output: str = ""
    frames: str = ""
    compression: str = ""
    matte_output: str = ""
    matte_channels: tuple[str, ...] = ()
    skip_existing: bool = False
    continue_on_error: bool = False
    priority: int = 0
    import_result: bool = True


class Render:
    """`changed`: the settings, or what is in the way, are others."""

    def __init__(self, work: Work, jobs: Jobs, notices: Notices, errands: Errands, host: Host | None) -> None:
        self.settings = RenderSettings()
        self.preparing = ""  # what the host is doing before the job can be sent
        self.changed = Topic()
        self._work = work
        self._jobs = jobs
        self._notices = notices
        self._errands = errands
        self._host = host
        self._sent: dict[str, bool] = {}  # renders of this panel, and whether the host is to show the result
        jobs.ended.connect(self._ended)

    def set(self, **fields: Any) -> None:
        """Change settings."""
        settings = replace(self.settings, **fields)
        settings = replace(settings, output=absolute(settings.output), matte_output=absolute(settings.matte_output))
        if settings != self.settings:
            self.settings = settings
            self.changed.emit()

    def suggest_output(self) -> str:
        """An output pattern in a folder of its own beside the plate's; "" without a plate."""
        pattern = self._work.plate.state.spec.pattern
        if not pattern:
            return ""
        folder, name = os.path.split(pattern)
        effect = self._work.history.document.effect or "faceplate"
        stem = re.sub(r"[._]*(%0?\d*d|#+|@+|\$F\d*|\$\{F\d*\}).*\Z", "", name)
        token = name[len(stem) :]
        if not has_token(token):
            stem, token = os.path.splitext(name)
        token = re.sub(r"\.[A-Za-z]+\Z", "", token)
        return os.path.join(os.path.dirname(folder), f"{stem}_{effect}", f"{stem}_{effect}{token}.exr")

    def problems(self) -> tuple[FaceplateError, ...]:
        """What is in the way of a render, each with its remedy; () when it can be submitted."""
        return tuple(p for p in (*self._plate_problems(), *self._values_problems(), *self._output_problems()))

    def job(self, kind: str = "render") -> JobSpec:
        """The job as it would be submitted."""
        spec = self._work.job(kind)
        if kind != "render":
            return spec
        settings = self.settings
        return replace(
            spec,
            frames=settings.frames,
            output=settings.output,
            matte_output=settings.matte_output,
            matte_channels=list(settings.matte_channels),
            compression=settings.compression,
            skip_existing=settings.skip_existing,
            continue_on_error=settings.continue_on_error,
        )

    def analyse(self) -> None:
        """Submit the analysis of the shot. What is in the way is noticed instead."""
        if not self._notice(self._plate_problems()):
            self._send(self.job("analyse"))

    @property
    def adapts(self) -> bool:
        """Whether the chosen effect has long steps that a render may need."""
        effect = self._work.effects.current
        return effect is not None and bool(effect.steps)

    def adapt_problems(self) -> tuple[FaceplateError, ...]:
        """What is in the way of adapting; () when it can be submitted."""
        return (*self._plate_problems(), *self._values_problems())

    def adapt(self) -> None:
        """Submit the effect's long steps with the values as they are. What is in the way is noticed instead."""
        if not self._notice(self.adapt_problems()):
            self._send(self.job("adapt"))

    def adapt_as(self, job_id: str, *, accept: bool = False) -> None:
        """Submit the long steps of a job that this panel has sent (`Jobs.adapting`), with that job's values.

        `accept` takes the best so far of a run that was stopped as it is.
        """
        spec = self._jobs.adapting(job_id)
        if spec is not None:
            self._submit(replace(spec, accept=accept))

    def render(self) -> None:
        """Submit the render. What is in the way is noticed instead."""
        if not self._notice(self.problems()):
            self._send(self.job())

    def submit(self, farm: str, options: FarmOptions) -> None:
        """Hand the render to a farm (host_bridge.farm.FARMS); what is in the way, or the farm says, is noticed."""
        if self._notice(self.problems()):
            return
        spec = self.job()
        if not spec.frames:
            spec = replace(spec, frames=format_frames(self._work.plate.state.numbers))
        host = self._host
        self.preparing = f"{FARMS[farm].title} is asked"
        self.changed.emit()

        def hand_over() -> Submission:
            return submit(spec if host is None else host.prepare(spec), farm, options)

        def handed_over(outcome: Submission | FaceplateError) -> None:
            self.preparing = ""
            self.changed.emit()
            if isinstance(outcome, FaceplateError):
                self._notices.error(outcome)
            else:
                self._notices.info(f"{outcome.said or 'Written, not submitted'}: {outcome.folder}")

        self._errands.run(hand_over, handed_over)

    # inside

    def _notice(self, problems: tuple[FaceplateError, ...]) -> bool:
        for problem in problems:
            self._notices.error(problem)
        return bool(problems)

    def _send(self, spec: JobSpec) -> None:
        """Let the host make the plate exist, elsewhere than on this thread, then submit."""
        if self._host is None:
            self._submit(spec)
            return
        host = self._host
        self.preparing = f"{host.name} prepares the plate"
        self.changed.emit()

        def prepared(outcome: JobSpec | FaceplateError) -> None:
            self.preparing = ""
            self.changed.emit()
            if isinstance(outcome, FaceplateError):
                self._notices.error(outcome)
                return
            self._submit(outcome)
            if self._work.plate.state.error is not None:
                self._work.plate.refresh()

        self._errands.run(lambda: host.prepare(spec), prepared)

    def _submit(self, spec: JobSpec) -> None:
        try:
            job_id = self._jobs.submit(spec, priority=self.settings.priority)
        except FaceplateError as error:
            self._notices.error(error)
            return
        if spec.kind == "render":
            self._sent[job_id] = self.settings.import_result

    def _ended(self, job_id: str) -> None:
        wanted = self._sent.get(job_id, False)
        row, spec, host = self._jobs.find(job_id), self._jobs.spec(job_id), self._host
        if not wanted or host is None or row is None or spec is None or row.state != "finished":
            return

        def imported(outcome: str | FaceplateError) -> None:
            if isinstance(outcome, FaceplateError):
                self._notices.error(outcome)
            else:
                self._notices.info(f"{outcome} shows the result.")

        self._errands.run(lambda: host.import_result(spec), imported)

    def _plate_problems(self) -> tuple[FaceplateError, ...]:
        plate = self._work.plate.state
        if not plate.spec.pattern:
            return (_missing("no plate is chosen", "Choose the plate's frames, as in shots/sh010.%04d.exr."),)
        if plate.error is None or (self._host is not None and plate.error.code == "plate.no_frames"):
            return ()  # what is not on disk yet, the host writes
        return (plate.error,)

    def _values_problems(self) -> tuple[FaceplateError, ...]:
        effect = self._work.effects.current
        if effect is None:
            return (_missing("no effect is chosen", "Choose one in the list of effects."),)
        problem = self._work.values.problem()
        return (problem,) if problem is not None else ()

    def _output_problems(self) -> tuple[FaceplateError, ...]:
        settings, plate = self.settings, self._work.plate.state
        out: list[FaceplateError] = []
        if not settings.output:
            out.append(_missing("no output is chosen", "Say where the frames go, as in renders/sh010_toon.%04d.exr."))
        elif same_pattern(settings.output, plate.spec.pattern):
            out.append(
                JobError(
                    "job.output_is_input",
                    "the output would overwrite the plate",
                    path=settings.output,
                    remedy="Write into another folder or under another name.",
                )
            )
        try:
            frames = frames_of(settings.frames)
        except FaceplateError as error:
            return (*out, error)
        count = len(frames or plate.numbers)
        for path in (settings.output, settings.matte_output):
            if path and count > 1 and not has_token(os.path.basename(path)):
                out.append(
                    RequestError(
                        "request.bad_value",
                        f"{count} frames would be written to one file",
                        path=path,
                        value=path,
                        remedy="Put a placeholder for the frame into the name, such as %04d.",
                    )
                )
        lacking = set(frames) - set(plate.numbers)
        if plate.found is not None and lacking and plate.spec.missing == "error":
            out.append(
                RequestError(
                    "request.frame_range",
                    f"the plate has no frames {format_frames(lacking)}",
                    value=settings.frames,
                    remedy=f"It has {plate.found.frames}; or choose what to do about missing frames: hold or skip.",
                )
            )
        return tuple(out)


def _missing(what: str, remedy: str) -> PanelError:
    return PanelError("panel.input", what, remedy=remedy)
