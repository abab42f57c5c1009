"""The contract between a worker process and the pipeline: what a run is given and what it yields.

A run is a generator. Between two yields the worker looks for cancel and preview requests, so every long step
yields (`Tick` when there is nothing to say). Cancelling is closing the generator: its `finally` clauses remove
what is half written.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from host_bridge.jobspec import JobSpec, PreviewSpec
from host_bridge.messages import Faces


@dataclass(frozen=True)
class JobContext:
    """What a worker gives a run.

    `done` are frames an earlier attempt of this job reported finished (the run still checks that the file is there
    and valid). From the second `attempt` on, any frame of this very job that is there and valid is kept, reported or
    not: the server may have died before it heard. `banned` maps frames that killed the worker twice to the error to
    report. `may_write` is asked right before every `os.replace`: False means another worker holds the lease now, and
    the run must stop
    (JobError `job.lease_lost`).
    """

    job_id: str
    done: frozenset[int] = frozenset()
    attempt: int = 1
    banned: Mapping[int, dict[str, Any]] = field(default_factory=dict)
    may_write: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class Tick:
    """Nothing to report; a safe place to cancel or to serve a preview."""


@dataclass(frozen=True)
class Planned:
    """First event: the shot, the frames this run will do, and the numeric plan it will not change."""

    shot: str
    frames: tuple[int, ...]
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """`stage` is `analyse`, `prepare` (an effect learns of the shot) or `render`, and `done` of `total` are frames;
    or it is the name of an effect's long step, and they are iterations.

    `note` is for people ("loss 0.0312"); `picture` is a PNG file of how it looks so far, "" = none.
    """

    stage: str
    done: int
    total: int
    note: str = ""
    picture: str = ""


@dataclass(frozen=True)
class FrameStarted:
    """A frame's uninterruptible work begins; the supervisor uses it to know which frame killed a worker."""

    frame: int


@dataclass(frozen=True)
class FrameDone:
    """A frame is on disk under its final name. `status` is `rendered`, `identity`, `kept`, `held`, `interpolated`."""

    frame: int
    path: str
    status: str
    seconds: float


@dataclass(frozen=True)
class FrameFailed:
    """A frame could not be made; `error` is a FaceplateError's `to_wire()`. The run goes on if the job says so."""

    frame: int
    error: Mapping[str, Any]


@dataclass(frozen=True)
class Warned:
    """Something the artist should know; `frame` None means the whole job. `code` is dotted and stable."""

    code: str
    message: str
    frame: int | None = None


T = TypeVar("T")


def result_of(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end, what it yields unseen, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


RunEvent = Tick | Planned | Progress | FrameStarted | FrameDone | FrameFailed | Warned


@dataclass(frozen=True)
class PreviewPicture:
    """uint8 [h, w, 3] through the viewer's display transform. `region` (x0, y0, x1, y1) is where it lies in the plate.

    `final` False means the render will differ; `note` says why (not analysed yet, recurrent effect, ...).
    """

    pixels: NDArray[np.uint8]
    region: tuple[int, int, int, int]
    final: bool
    note: str
    seconds: float


class Runner(Protocol):
    """What a worker process holds: made once per process by `inference_server.pipeline.open_runner(device, ...)`.

    `report` is set by the worker before the first call: (text, done in 0..1) says that a long step besides frames is
    under way, such as "loading vtoonify"; 1 ends it. It may be called on any thread and at any rate.
    """

    report: Callable[[str, float], None]

    def run(self, spec: JobSpec, context: JobContext) -> Iterator[RunEvent]:
        """Do a job. Errors that end the job are raised as FaceplateError; per-frame ones are yielded."""
        ...

    def preview(self, spec: PreviewSpec) -> PreviewPicture:
        """Make one picture, using what is decoded and analysed already where possible."""
        ...

    def faces(self, job: JobSpec, frame: int) -> Faces:
        """The faces of a frame, using what is decoded and analysed already where possible."""
        ...

    def close(self) -> None:
        """Release files, threads and device memory."""
        ...
