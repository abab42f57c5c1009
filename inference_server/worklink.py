"""What gateway and worker say to each other: the same envelope as clients use, other messages.

The link is TCP on the loopback interface with CURVE: unlike `ipc` it exists on every operating system, and the keys
keep other users of the machine out. A worker gets its address and keys as one line on standard input; the end of that
pipe is how it learns that its parent is gone.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from host_bridge.envelope import Limits
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec

LINK_LIMITS = Limits(body=64 << 20, buffer=256 << 20, buffers=1)


@dataclass(frozen=True)
class LinkMessage:
    """Base: `TYPE` is the envelope's type."""

    TYPE: ClassVar[str] = ""

    def body(self) -> dict[str, Any]:
        return asdict(self)


# gateway -> worker


@dataclass(frozen=True)
class RunJob(LinkMessage):
    """Do a job. `attempt` is also the number in the lease file `lease`; `banned` maps frame text to error."""

    TYPE: ClassVar[str] = "run_job"

    job_id: str
    attempt: int
    lease: str
    spec: JobSpec
    done: list[int] = field(default_factory=list)
    banned: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class StopJob(LinkMessage):
    """Stop it before the next frame."""

    TYPE: ClassVar[str] = "stop_job"

    job_id: str


@dataclass(frozen=True)
class MakePreview(LinkMessage):
    """Make a picture, between the frames of a running job if need be."""

    TYPE: ClassVar[str] = "make_preview"

    ask_id: str
    spec: PreviewSpec


@dataclass(frozen=True)
class TellFaces(LinkMessage):
    """Say which faces a frame has, between the frames of a running job if need be."""

    TYPE: ClassVar[str] = "tell_faces"

    ask_id: str
    job: JobSpec
    frame: int


@dataclass(frozen=True)
class TellColor(LinkMessage):
    """Say what an OCIO config offers."""

    TYPE: ClassVar[str] = "tell_color"

    ask_id: str
    ocio: str


@dataclass(frozen=True)
class TellPlate(LinkMessage):
    """Say what a plate is."""

    TYPE: ClassVar[str] = "tell_plate"

    ask_id: str
    plate: PlateSpec
    ocio: str


@dataclass(frozen=True)
class Quit(LinkMessage):
    """Drop everything, tidy up and exit."""

    TYPE: ClassVar[str] = "quit"


# worker -> gateway


@dataclass(frozen=True)
class WorkerReady(LinkMessage):
    """The pipeline is open."""

    TYPE: ClassVar[str] = "worker_ready"

    device: str
    name: str = ""


@dataclass(frozen=True)
class WorkerFailed(LinkMessage):
    """The pipeline could not be opened; the worker exits."""

    TYPE: ClassVar[str] = "worker_failed"

    error: dict[str, Any]


@dataclass(frozen=True)
class WorkerMemory(LinkMessage):
    """Bytes: of the process, and used and total of its device (0 = not known)."""

    TYPE: ClassVar[str] = "worker_memory"

    rss: int
    used: int = 0
    total: int = 0


@dataclass(frozen=True)
class WorkerActivity(LinkMessage):
    """A long step besides frames: `done` is 0..1 of it, 1 (or no text) when it is over."""

    TYPE: ClassVar[str] = "worker_activity"

    text: str = ""
    done: float = 1.0


@dataclass(frozen=True)
class RunPlanned(LinkMessage):
    TYPE: ClassVar[str] = "run_planned"

    job_id: str
    attempt: int
    shot: str
    total: int
    plan: dict[str, Any]


@dataclass(frozen=True)
class RunProgress(LinkMessage):
    TYPE: ClassVar[str] = "run_progress"

    job_id: str
    attempt: int
    stage: str
    done: int
    total: int
    note: str = ""
    picture: str = ""


@dataclass(frozen=True)
class RunFrameStarted(LinkMessage):
    TYPE: ClassVar[str] = "run_frame_started"

    job_id: str
    attempt: int
    frame: int


@dataclass(frozen=True)
class RunFrameDone(LinkMessage):
    TYPE: ClassVar[str] = "run_frame_done"

    job_id: str
    attempt: int
    frame: int
    path: str
    status: str
    seconds: float


@dataclass(frozen=True)
class RunFrameFailed(LinkMessage):
    TYPE: ClassVar[str] = "run_frame_failed"

    job_id: str
    attempt: int
    frame: int
    error: dict[str, Any]


@dataclass(frozen=True)
class RunWarned(LinkMessage):
    TYPE: ClassVar[str] = "run_warned"

    job_id: str
    attempt: int
    code: str
    message: str
    frame: int | None = None


@dataclass(frozen=True)
class RunEnded(LinkMessage):
    """`state` is finished, cancelled or failed."""

    TYPE: ClassVar[str] = "run_ended"

    job_id: str
    attempt: int
    state: str
    error: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer(LinkMessage):
    """What a question led to: the fields of the client's answer. A picture's pixels follow as a buffer."""

    TYPE: ClassVar[str] = "answer"

    ask_id: str
    body_fields: dict[str, Any] = field(default_factory=dict)
    error: dict[str, Any] | None = None


FROM_WORKER: dict[str, type[LinkMessage]] = {
    c.TYPE: c
    for c in (
        WorkerReady,
        WorkerFailed,
        WorkerMemory,
        WorkerActivity,
        RunPlanned,
        RunProgress,
        RunFrameStarted,
        RunFrameDone,
        RunFrameFailed,
        RunWarned,
        RunEnded,
        Answer,
    )
}
TO_WORKER: dict[str, type[LinkMessage]] = {
    c.TYPE: c for c in (RunJob, StopJob, MakePreview, TellFaces, TellColor, TellPlate, Quit)
}

Aside = TellColor | TellPlate  # answered beside the worker's main thread, at any time

RunMessage = RunPlanned | RunProgress | RunFrameStarted | RunFrameDone | RunFrameFailed | RunWarned | RunEnded
