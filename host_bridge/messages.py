"""Every message of protocol v1: one frozen dataclass per type, and how a body becomes one.

Field documentation lives here (`Annotated`); PROTOCOL.md's tables are generated from it. The client reads bodies with
`from_body` (tolerant: unknown fields dropped, missing ones defaulted), the server validates the same classes
strictly with msgspec.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cache
from typing import Annotated, Any, ClassVar, TypeVar, get_type_hints

from host_bridge.envelope import malformed
from host_bridge.jobspec import JobSpec, PlateSpec, PreviewSpec

JOB_KINDS = ("analyse", "render", "repair", "adapt")
JOB_STATES = ("queued", "running", "finished", "failed", "cancelled")
TERMINAL_EVENTS = ("job_finished", "job_failed", "job_cancelled")


def _plain(value: Any) -> Any:
    """A field as JSON sees it. Unlike `dataclasses.asdict` it copies no containers: bodies are written, not kept."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, list) and value and hasattr(value[0], "__dataclass_fields__"):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True)
class Message:
    """Base of all messages. `TYPE` is the header's type, `ANSWER` what a request is answered with if all is well."""

    TYPE: ClassVar[str] = ""
    ANSWER: ClassVar[str] = ""

    def body(self) -> dict[str, Any]:
        """The message as a JSON object."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}


# client -> server


@dataclass(frozen=True)
class Hello(Message):
    """First message on a connection."""

    TYPE: ClassVar[str] = "hello"
    ANSWER: ClassVar[str] = "welcome"

    client: Annotated[str, "Name and version of the program that connects"] = ""
    host: Annotated[str, "Name of the machine it runs on"] = ""


@dataclass(frozen=True)
class Ping(Message):
    """Asks whether the server is there, and how busy."""

    TYPE: ClassVar[str] = "ping"
    ANSWER: ClassVar[str] = "pong"


@dataclass(frozen=True)
class ListEffects(Message):
    """Asks for every effect's descriptor."""

    TYPE: ClassVar[str] = "list_effects"
    ANSWER: ClassVar[str] = "effects"


@dataclass(frozen=True)
class ListColor(Message):
    """Asks what the OCIO config offers."""

    TYPE: ClassVar[str] = "list_color"
    ANSWER: ClassVar[str] = "color"

    ocio: Annotated[str, 'Path of an OCIO config; "" = the server\'s own'] = ""


@dataclass(frozen=True)
class ListModels(Message):
    """Asks which models exist and which are present."""

    TYPE: ClassVar[str] = "list_models"
    ANSWER: ClassVar[str] = "models"


@dataclass(frozen=True)
class DescribePlate(Message):
    """Asks what a plate is: its frames, size, layers, and the colourspace it would be read in."""

    TYPE: ClassVar[str] = "describe_plate"
    ANSWER: ClassVar[str] = "plate"

    plate: Annotated[PlateSpec, "Where it is (host_bridge/jobspec.py)"]
    ocio: Annotated[str, 'Path of an OCIO config; "" = the server\'s own'] = ""


@dataclass(frozen=True)
class ListFaces(Message):
    """Asks for the faces of one frame of a job's plate, as far as the shot has been analysed."""

    TYPE: ClassVar[str] = "list_faces"
    ANSWER: ClassVar[str] = "faces"

    job: Annotated[JobSpec, "Plate, shot, effect and face choice (host_bridge/jobspec.py)"]
    frame: Annotated[int, "The frame"] = 0


@dataclass(frozen=True)
class ImportModel(Message):
    """Starts to import a model file that lies on the server's machine. How far it is: `imports` of `models`.

    Local clients only, unless the server's `remote_imports` is set. Effects may offer other choices afterwards.
    """

    TYPE: ClassVar[str] = "import_model"
    ANSWER: ClassVar[str] = "models"

    path: Annotated[str, "The file as its authors publish it, as the server sees it"]
    model: Annotated[str, 'Card\'s id; "" = found out from the file'] = ""
    accept_licence: Annotated[bool, "Its licence has been shown and accepted"] = False
    template: Annotated[str, "Id of a template card; `model` is then the new model's own id"] = ""


@dataclass(frozen=True)
class SubmitJob(Message):
    """Asks for work. The message id becomes the job's id, so sending it again changes nothing."""

    TYPE: ClassVar[str] = "submit_job"
    ANSWER: ClassVar[str] = "job_accepted"

    job: Annotated[JobSpec, "What to do (host_bridge/jobspec.py)"]
    priority: Annotated[int, "Higher runs earlier, -100..100; equal ones in order of arrival"] = 0


@dataclass(frozen=True)
class CancelJob(Message):
    """Ends a job before its next frame. Frames already written stay."""

    TYPE: ClassVar[str] = "cancel_job"
    ANSWER: ClassVar[str] = "job_status"

    job_id: Annotated[str, "The job, or the first 6 or more digits of its id"]


@dataclass(frozen=True)
class ResumeJob(Message):
    """Puts a failed or cancelled job back into the queue; frames that are finished and valid are kept."""

    TYPE: ClassVar[str] = "resume_job"
    ANSWER: ClassVar[str] = "job_status"

    job_id: Annotated[str, "The job, or the first 6 or more digits of its id"]


@dataclass(frozen=True)
class QueryJob(Message):
    """Asks for a job's state and for the events after a sequence number; the asking client receives its events on."""

    TYPE: ClassVar[str] = "query_job"
    ANSWER: ClassVar[str] = "job_status"

    job_id: Annotated[str, "The job, or the first 6 or more digits of its id"]
    after: Annotated[int, "Events with a higher `seq` are sent; -1 sends none"] = -1


@dataclass(frozen=True)
class ListJobs(Message):
    """Asks for the newest jobs."""

    TYPE: ClassVar[str] = "list_jobs"
    ANSWER: ClassVar[str] = "jobs"

    state: Annotated[str, 'One of the job states; "" = all'] = ""
    limit: Annotated[int, "At most so many, 1..1000"] = 100


@dataclass(frozen=True)
class Preview(Message):
    """Asks for one picture. A newer request of the same session replaces an older one that has not begun."""

    TYPE: ClassVar[str] = "preview"
    ANSWER: ClassVar[str] = "preview_result"

    preview: Annotated[PreviewSpec, "What to show (host_bridge/jobspec.py)"]
    stamp: Annotated[int, "Returned as it is, so that a late result can be dropped"] = 0


@dataclass(frozen=True)
class Shutdown(Message):
    """Stops the server. Unfinished jobs stay in the job store and go on at the next start. Local clients only."""

    TYPE: ClassVar[str] = "shutdown"
    ANSWER: ClassVar[str] = "bye"


# server -> client: answers


@dataclass(frozen=True)
class Welcome(Message):
    """Answers hello. The header's session is the server's; another one than before means it was restarted."""

    TYPE: ClassVar[str] = "welcome"

    server: Annotated[str, "Name and version of the server"] = ""
    pid: Annotated[int, "Its process id"] = 0
    capabilities: Annotated[list[str], "Message types it understands"] = field(default_factory=list)
    devices: Annotated[list[str], "Devices it was started for"] = field(default_factory=list)
    heartbeat_s: Annotated[float, "Seconds of silence after which a client should ping"] = 1.0
    max_body: Annotated[int, "Largest body in bytes it accepts"] = 0
    max_preview: Annotated[int, "Largest longer side of a preview in pixels"] = 0
    log: Annotated[str, "Path of its log file"] = ""


@dataclass(frozen=True)
class DeviceStatus:
    """One worker process: `state` is starting, idle, busy, restarting or failed; memory is in bytes, 0 = not known.

    `activity` names a long step besides frames ("loading vtoonify-d-cartoon-s-d"), `activity_done` is 0..1 of it.
    """

    device: str = ""
    state: str = ""
    pid: int = 0
    job_id: str = ""
    restarts: int = 0
    rss: int = 0
    memory_used: int = 0
    memory_total: int = 0
    name: str = ""
    activity: str = ""
    activity_done: float = 0.0


@dataclass(frozen=True)
class Pong(Message):
    """Answers ping."""

    TYPE: ClassVar[str] = "pong"

    queued: Annotated[int, "Jobs that wait"] = 0
    running: Annotated[int, "Jobs that run"] = 0
    devices: Annotated[list[DeviceStatus], "One per worker process"] = field(default_factory=list)
    rss: Annotated[int, "Memory of the gateway process in bytes"] = 0
    jobs: Annotated[dict[str, int], "The asking session's live jobs and the last event's `seq` of each"] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class Effects(Message):
    """Answers list_effects."""

    TYPE: ClassVar[str] = "effects"

    effects: Annotated[list[dict[str, Any]], "Descriptors (host_bridge/effects.py)"] = field(default_factory=list)


@dataclass(frozen=True)
class Color(Message):
    """Answers list_color."""

    TYPE: ClassVar[str] = "color"

    config: Annotated[str, "Name or path of the config"] = ""
    hash: Annotated[str, "Hash of its content; a job that carries another one is refused"] = ""
    colorspaces: Annotated[list[str], "Names of its colourspaces"] = field(default_factory=list)
    roles: Annotated[dict[str, str], "Role -> colourspace"] = field(default_factory=dict)
    displays: Annotated[dict[str, list[str]], "Display -> views"] = field(default_factory=dict)


@dataclass(frozen=True)
class Models(Message):
    """Answers list_models."""

    TYPE: ClassVar[str] = "models"

    models: Annotated[list[dict[str, Any]], "Cards: name, licence, present or how to get it"] = field(
        default_factory=list
    )
    imports: Annotated[
        list[dict[str, Any]],
        "Imports since the server's start, newest first: path, model, "
        "state (waiting, running, finished, failed), done (0..1), message, error (as in `error`, or null)",
    ] = field(default_factory=list)


@dataclass(frozen=True)
class Plate(Message):
    """Answers describe_plate. Sizes are of the first frame that can be read."""

    TYPE: ClassVar[str] = "plate"

    frames: Annotated[str, "Frames on disk as a range"] = ""
    first: Annotated[int, "First frame"] = 0
    last: Annotated[int, "Last frame"] = 0
    width: Annotated[int, "Of the display window in pixels"] = 0
    height: Annotated[int, "Of the display window in pixels"] = 0
    pixel_aspect: Annotated[float, "Width / height of a pixel"] = 1.0
    colorspace: Annotated[str, "OCIO name of the space it is read in"] = ""
    compression: Annotated[str, "As written; an output without an own one gets the same"] = ""
    parts: Annotated[list[str], "Names (or numbers) of its parts"] = field(default_factory=list)
    layers: Annotated[list[str], "Layers with colour, by the names that `layer` takes; plain channels need none"] = (
        field(default_factory=list)
    )
    views: Annotated[list[str], "Views of a multi-view file or of a %V pattern"] = field(default_factory=list)
    shots: Annotated[
        list[str], "Ids of shots analysed with these settings that hold its frames, the one a job finds first"
    ] = field(default_factory=list)


@dataclass(frozen=True)
class Faces(Message):
    """Answers list_faces. Coordinates are plate pixels from the display window's upper left corner.

    A face: `track`, `enabled` (effects see it), `state` (detected, interpolated, manual), `score`, `chosen` (by the
    job's face choice; none where that names no face of the shot), `box` [x0, y0, x1, y1], `points` [[x, y], ...] of the
    478-point mesh, `region` [x0, y0, x1, y1], the crop the effect takes ([] without an effect, or outside the plate).
    A track: `track`, `enabled`, `chosen`, `frames` (a range, "" = nowhere).
    """

    TYPE: ClassVar[str] = "faces"

    frame: Annotated[int, "The frame"] = 0
    shot: Annotated[str, 'Id of the analysed shot; "" = not analysed, faces of this frame alone'] = ""
    locked: Annotated[bool, "The shot is approved; repairs are refused"] = False
    faces: Annotated[list[dict[str, Any]], "Faces of this frame"] = field(default_factory=list)
    tracks: Annotated[list[dict[str, Any]], "Tracks of the shot; [] where it is not analysed"] = field(
        default_factory=list
    )
    repairs: Annotated[dict[str, Any], "The shot's manual repairs, as `faceplate shots edit --export` writes them"] = (
        field(default_factory=dict)
    )


@dataclass(frozen=True)
class JobAccepted(Message):
    """Answers submit_job. The job is on disk and survives the server."""

    TYPE: ClassVar[str] = "job_accepted"

    job_id: Annotated[str, "The job's id"]
    state: Annotated[str, "Its state"] = "queued"
    duplicate: Annotated[bool, "True when this message had been accepted before"] = False
    ahead: Annotated[int, "Jobs that wait before it"] = 0


@dataclass(frozen=True)
class JobStatus(Message):
    """Answers query_job, cancel_job and resume_job."""

    TYPE: ClassVar[str] = "job_status"

    job_id: Annotated[str, "The job's full id"]
    state: Annotated[str, "queued, running, finished, failed or cancelled"] = ""
    cancelling: Annotated[bool, "A cancel has been asked for and not taken effect yet"] = False
    kind: Annotated[str, "analyse, render, repair or adapt"] = ""
    effect: Annotated[str, "Identifier of the effect"] = ""
    job: Annotated[dict[str, Any], "The JobSpec; {} in lists"] = field(default_factory=dict)
    created: Annotated[float, "Unix seconds"] = 0.0
    started: Annotated[float, "Unix seconds, 0 = not yet"] = 0.0
    ended: Annotated[float, "Unix seconds, 0 = not yet"] = 0.0
    total: Annotated[int, "Frames it will do, 0 = not known yet"] = 0
    done: Annotated[int, "Frames that are on disk"] = 0
    failed: Annotated[int, "Frames that failed"] = 0
    device: Annotated[str, "Where it runs"] = ""
    error: Annotated[dict[str, Any] | None, "Why it failed"] = None
    last_seq: Annotated[int, "`seq` of its last event"] = 0
    events: Annotated[list[dict[str, Any]], "Events asked for, in order: `type` and the event's fields"] = field(
        default_factory=list
    )
    more: Annotated[bool, "More events follow: ask again after the last one"] = False


@dataclass(frozen=True)
class Jobs(Message):
    """Answers list_jobs, newest first."""

    TYPE: ClassVar[str] = "jobs"

    jobs: Annotated[list[JobStatus], "Without job and events"] = field(default_factory=list)


@dataclass(frozen=True)
class PreviewResult(Message):
    """Answers preview. One buffer follows when `state` is made, none when it was replaced by a newer request."""

    TYPE: ClassVar[str] = "preview_result"

    stamp: Annotated[int, "The request's"] = 0
    frame: Annotated[int, "The request's"] = 0
    state: Annotated[str, "made or replaced"] = "made"
    dtype: Annotated[str, "Of the buffer: uint8"] = "uint8"
    shape: Annotated[list[int], "Height, width, 3; row-major"] = field(default_factory=list)
    region: Annotated[list[int], "x0, y0, x1, y1: where it lies in the plate"] = field(default_factory=list)
    final: Annotated[bool, "Whether the render will give the same"] = True
    note: Annotated[str, "Why not"] = ""
    seconds: Annotated[float, "Time the worker took"] = 0.0


@dataclass(frozen=True)
class Bye(Message):
    """Answers shutdown: the server stops now."""

    TYPE: ClassVar[str] = "bye"


@dataclass(frozen=True)
class Error(Message):
    """Answers anything that could not be done. Never sent unasked."""

    TYPE: ClassVar[str] = "error"

    error: Annotated[dict[str, Any], "code, message, remedy, value, frame, path (host_bridge/errors.py)"]


# server -> client: events


@dataclass(frozen=True)
class JobStarted(Message):
    """A worker has begun; sent again after a restart of server or worker."""

    TYPE: ClassVar[str] = "job_started"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    attempt: Annotated[int, "1, and one more for each restart"] = 1
    device: Annotated[str, "Where it runs"] = ""
    shot: Annotated[str, "Id of the analysed shot"] = ""
    total: Annotated[int, "Frames of the job"] = 0
    plan: Annotated[dict[str, Any], "The numeric plan: batch, tile, precision, threads, ..."] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class JobProgress(Message):
    """How far it is; at most ten a second, not stored, not counted."""

    TYPE: ClassVar[str] = "job_progress"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "`seq` of the last event before it"] = 0
    stage: Annotated[str, "analyse, prepare, render, or the name of a long step of the effect"] = ""
    done: Annotated[int, "Frames (of a long step: iterations) done in this stage"] = 0
    total: Annotated[int, "Frames or iterations of this stage"] = 0
    note: Annotated[str, 'For people: the loss, the face; "" = nothing to add'] = ""
    picture: Annotated[str, 'A PNG of how it looks so far, as the server sees it; "" = none'] = ""


@dataclass(frozen=True)
class FrameDoneEvent(Message):
    """A frame is on disk under its final name. Never dropped."""

    TYPE: ClassVar[str] = "frame_done"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    frame: Annotated[int, "The frame"] = 0
    path: Annotated[str, "Its file, as the server sees it"] = ""
    status: Annotated[str, "rendered, identity, kept, held or interpolated"] = "rendered"
    seconds: Annotated[float, "Time it took"] = 0.0


@dataclass(frozen=True)
class FrameFailedEvent(Message):
    """A frame could not be made; the job may go on."""

    TYPE: ClassVar[str] = "frame_failed"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    frame: Annotated[int, "The frame"] = 0
    error: Annotated[dict[str, Any], "Why"] = field(default_factory=dict)


@dataclass(frozen=True)
class JobWarning(Message):
    """Something the artist should know."""

    TYPE: ClassVar[str] = "job_warning"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    code: Annotated[str, "Dotted and stable"] = ""
    message: Annotated[str, "For people"] = ""
    frame: Annotated[int | None, "The frame, or null for the whole job"] = None


@dataclass(frozen=True)
class JobFinished(Message):
    """The job's last event: every frame is there."""

    TYPE: ClassVar[str] = "job_finished"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    done: Annotated[int, "Frames on disk"] = 0
    failed: Annotated[int, "0"] = 0
    seconds: Annotated[float, "Since it started"] = 0.0


@dataclass(frozen=True)
class JobFailed(Message):
    """The job's last event: it ended early, or some frames failed."""

    TYPE: ClassVar[str] = "job_failed"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    done: Annotated[int, "Frames on disk"] = 0
    failed: Annotated[int, "Frames that failed"] = 0
    seconds: Annotated[float, "Since it started"] = 0.0
    error: Annotated[dict[str, Any], "Why"] = field(default_factory=dict)


@dataclass(frozen=True)
class JobCancelled(Message):
    """The job's last event: it was cancelled."""

    TYPE: ClassVar[str] = "job_cancelled"

    job_id: Annotated[str, "The job"]
    seq: Annotated[int, "Counts the job's events from 1 without gaps"] = 0
    done: Annotated[int, "Frames on disk"] = 0
    failed: Annotated[int, "Frames that failed"] = 0
    seconds: Annotated[float, "Since it started"] = 0.0


REQUESTS: tuple[type[Message], ...] = (
    Hello,
    Ping,
    ListEffects,
    ListColor,
    ListModels,
    DescribePlate,
    ListFaces,
    ImportModel,
    SubmitJob,
    CancelJob,
    ResumeJob,
    QueryJob,
    ListJobs,
    Preview,
    Shutdown,
)
ANSWERS: tuple[type[Message], ...] = (
    Welcome,
    Pong,
    Effects,
    Color,
    Models,
    Plate,
    Faces,
    JobAccepted,
    JobStatus,
    Jobs,
    PreviewResult,
    Bye,
    Error,
)
EVENTS: tuple[type[Message], ...] = (
    JobStarted,
    JobProgress,
    FrameDoneEvent,
    FrameFailedEvent,
    JobWarning,
    JobFinished,
    JobFailed,
    JobCancelled,
)
BY_TYPE: dict[str, type[Message]] = {m.TYPE: m for m in (*REQUESTS, *ANSWERS, *EVENTS)}

JobEvent = (
    JobStarted | JobProgress | FrameDoneEvent | FrameFailedEvent | JobWarning | JobFinished | JobFailed | JobCancelled
)

M = TypeVar("M")

_SCALARS: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (int, float),
    bool: (bool,),
}


@cache
def hints(cls: type) -> dict[str, Any]:
    """The resolved types of a dataclass's fields, without their documentation."""
    return get_type_hints(cls)


def from_body(cls: type[M], body: dict[str, Any]) -> M:
    """A message from its body: fields it does not know are dropped, missing ones take their defaults.

    RequestError (`request.malformed`) when a plain field has another type or a required one is missing.
    """
    known = hints(cls)  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        if item.name not in body:
            continue
        value, kind = body[item.name], known[item.name]
        allowed = _SCALARS.get(kind)
        if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and kind is not bool)):
            raise malformed(f"{cls.__name__}.{item.name} is {value!r:.60}, expected {kind.__name__}")
        values[item.name] = value
    try:
        message = cls(**values)
    except TypeError as error:
        raise malformed(f"{cls.__name__}: {error}") from error
    if isinstance(message, Pong):
        devices = [from_body(DeviceStatus, d) for d in values.get("devices", []) if isinstance(d, dict)]
        return cls(**{**values, "devices": devices})
    if isinstance(message, Jobs):
        return cls(**{**values, "jobs": [from_body(JobStatus, j) for j in values.get("jobs", [])]})
    return message


def event_from_body(type_: str, body: dict[str, Any]) -> JobEvent | None:
    """An event, or None for a type that a newer server has added."""
    cls = BY_TYPE.get(type_)
    if cls is None or cls not in EVENTS:
        return None
    event = from_body(cls, body)
    assert isinstance(event, JobEvent)
    return event
