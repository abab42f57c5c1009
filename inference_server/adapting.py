"""The long steps of an effect: taken as a job of their own (`adapt`), required by a render, noted by a preview.

Only effects that are a `StagedEffect` have them. What lies where, and what it is called, is in shots/steps.py.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from host_bridge.cli.words import adapt_words
from host_bridge.errors import EffectError, JobError, RequestError, ShotError
from host_bridge.jobspec import JobSpec
from inference_server.effects.base import NO_DATA, ShotData, StagedEffect
from inference_server.effects.steps import PREVIEW, StepResult
from inference_server.preparing import FaceOfShot, frames_of, learned_key
from inference_server.rendering import RenderSettings
from inference_server.runs import JobContext, Progress, RunEvent, Tick, Warned
from inference_server.shots.actors import check_actor, earlier_result, keep_for
from inference_server.shots.steps import StepKey, TakenStep, Work, differences, find_step, steps_of_kind
from inference_server.shots.store import ShotRecord, ShotStore
from inference_server.shots.types import ShotAnalysis


@dataclass(frozen=True)
class MissingStep:
    """A step that has not been taken with these values.

    differs  what is other in the nearest result that is stored, () where none is
    stopped  what a run that was stopped has, or None
    """

    key: StepKey
    differs: tuple[str, ...] = ()
    stopped: StepResult | None = None


@dataclass(frozen=True)
class Taken:
    """What is there for a job's values: by face, the steps in order; and the first that is not there of each face."""

    steps: Mapping[int, Mapping[str, TakenStep]]
    missing: tuple[MissingStep, ...]

    def settings(self, settings: RenderSettings) -> RenderSettings:
        """`settings` with the steps' folders in the shot's data."""
        shots = dict(settings.shots)
        for track, steps in self.steps.items():
            folders = {name: step.folder for name, step in steps.items()}
            shots[track] = replace(shots.get(track, NO_DATA), steps=folders)
        return replace(settings, shots=shots)

    @property
    def models(self) -> dict[str, str]:
        """What the pixels depend on: step and face -> digest and how far it was taken."""
        return {
            f"{name} of face {track}": f"{step.digest} {step.done} of {step.wanted} iterations"
            + (", accepted" if step.accepted else "")
            for track, steps in self.steps.items()
            for name, step in steps.items()
        }

    def warnings(self) -> Iterator[Warned]:
        """What the artist accepted is told with every render."""
        for track, steps in self.steps.items():
            for name, step in steps.items():
                if step.accepted:
                    text = (
                        f"face {track}: {name} was stopped and accepted after {step.done} of {step.wanted} iterations"
                    )
                    yield Warned("shot.step_accepted", text)


_NOTHING = Taken({}, ())


def taken_steps(store: ShotStore, record: ShotRecord, analysis: ShotAnalysis, settings: RenderSettings) -> Taken:
    """What is there of the steps that the values need."""
    effect = settings.effect
    if not isinstance(effect, StagedEffect):
        return _NOTHING
    steps: dict[int, dict[str, TakenStep]] = {}
    missing = []
    for track in settings.faces:
        steps[track] = {}
        for name in effect.steps(settings.values):
            key = _key(record, analysis, settings, effect, track, name, steps[track])
            found = find_step(store, record, key)
            if found is None:
                missing.append(_missing(store, record, key))
                break
            steps[track][name] = found
    return Taken(steps, tuple(missing))


def require_steps(
    store: ShotStore, record: ShotRecord, analysis: ShotAnalysis, settings: RenderSettings, spec: JobSpec
) -> Taken:
    """The same for a render: ShotError `shot.not_adapted`, with the command to run, where one is missing."""
    taken = taken_steps(store, record, analysis, settings)
    if taken.missing:
        raise not_adapted(taken.missing[0], spec)
    return taken


def not_adapted(missing: MissingStep, spec: JobSpec) -> ShotError:
    """What a render says that lacks a step."""
    key = missing.key
    text = f"the step {key.step} of face {key.track} has not been taken with these values"
    if missing.differs:
        text += f"; what is stored does not fit them, it was made with other {', '.join(missing.differs)}"
    remedy = f"Run: {command(spec)}"
    if missing.stopped is not None:
        text += f"; a run was stopped after {missing.stopped.done} of {missing.stopped.wanted} iterations"
        remedy += " (it goes on where it stopped; with --accept what it has is taken as it is)"
    return ShotError(
        "shot.not_adapted",
        text,
        value={"step": key.step, "face": key.track, "differs": list(missing.differs)},
        remedy=remedy,
    )


def command(spec: JobSpec) -> str:
    """The command line that takes the steps a job needs."""
    try:
        return shlex.join(["faceplate", *adapt_words(spec)])
    except RequestError:  # keyframed colours: no command line can say them
        return "faceplate adapt with the same plate, effect, face and values (from where the render was asked for)"


def in_words(missing: MissingStep) -> str:
    """For the note of a preview."""
    other = f" (what is stored was made with other {', '.join(missing.differs)})" if missing.differs else ""
    return f"face {missing.key.track} without the step {missing.key.step}{other}: run `faceplate adapt`"


# -- the job -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepOfShot(FaceOfShot):
    """See effects.base.StepView."""

    data: ShotData = NO_DATA
    folder: Path = Path()
    find_earlier: Callable[[str], Path] = Path

    def earlier(self, source: str) -> Path:
        return self.find_earlier(source)


def take_steps(
    store: ShotStore,
    record: ShotRecord,
    analysis: ShotAnalysis,
    settings: RenderSettings,
    view: Callable[[RenderSettings, int], FaceOfShot],
    spec: JobSpec,
    context: JobContext,
) -> Generator[RunEvent, None, None]:
    """Take every step that the values need, or those that the job names, of every chosen face.

    `settings` with what the effect learned of the shot. A step that is there is not taken again; one that was stopped
    goes on, or, where the job says `accept`, is published as it is. Raises what the effect raises, ShotError
    `shot.not_adapted` where a step that the job does not name is missing, JobError `job.lease_lost`.
    """
    effect = settings.effect
    if not isinstance(effect, StagedEffect):
        return
    needed = effect.steps(settings.values)
    for name in spec.steps:
        if name not in needed:
            yield Warned("effect.step_not_needed", f"with these values the step {name} is not needed")
    while spec.steps and needed and needed[-1] not in spec.steps:
        needed = needed[:-1]
    actors = {name: effect.kept_as(name, settings.values) for name in needed}
    for actor in actors.values():
        if actor and len(settings.faces) > 1:
            raise EffectError(
                "effect.parameter",
                f"{len(settings.faces)} faces are chosen, and {actor!r} is the name of one actor",
                value=actor,
                remedy="Adapt to one face at a time (--face), or leave the actor's name out.",
            )
        if actor:
            check_actor(actor)
    for track in settings.faces:
        steps: dict[str, TakenStep] = {}
        for name in needed:
            key = _key(record, analysis, settings, effect, track, name, steps)
            found = find_step(store, record, key)
            named = not spec.steps or name in spec.steps
            if found is None and not named:
                raise not_adapted(_missing(store, record, key), replace(spec, steps=[]))
            if found is None or (named and found.accepted and not spec.accept):
                data = replace(settings.shots.get(track, NO_DATA), steps={n: s.folder for n, s in steps.items()})
                face = view(replace(settings, shots={**settings.shots, track: data}), track)
                after_accepted = any(step.accepted for step in steps.values())
                one = _Step(store, record, key, effect, face, data, spec.accept, after_accepted, context)
                found = yield from one.take(f"face {track}" if len(settings.faces) > 1 else "")
            steps[name] = found
            if actors[name]:
                keep_for(store, actors[name], key.kind, found)
            picture = found.folder / PREVIEW
            text = "accepted as it is" if found.accepted else "finished"
            yield Progress(name, found.done, found.wanted, text, str(picture) if picture.is_file() else "")


@dataclass(frozen=True)
class _Step:
    """One step of one face, to be taken."""

    store: ShotStore
    record: ShotRecord
    key: StepKey
    effect: StagedEffect
    face: FaceOfShot
    data: ShotData
    accept: bool
    after_accepted: bool
    context: JobContext

    def take(self, about: str) -> Generator[RunEvent, None, TakenStep]:
        """The published result; of several jobs that want it, one works and the others wait."""
        work = Work(self.store, self.record, self.key)
        lock = work.lock()
        told = False
        while not lock.acquire():
            text = f"another job takes the step {self.key.step} of face {self.key.track}; its result is awaited"
            yield Tick() if told else Warned("shot.waiting", text)
            told = True
            lock.wait()
        with lock:
            found = find_step(self.store, self.record, self.key)
            if found is None or (found.accepted and not self.accept):
                found = work.accept() if self.accept else None
                if found is None:
                    if self.accept and not work.folder.exists() and not self.after_accepted:
                        text = f"no run of {self.key.step} was stopped with these values; it is taken from its start"
                        yield Warned("shot.nothing_to_accept", text)
                    found = yield from self._run(work, about)
        self.store.evict(keep=self.record.id)
        return found

    def _run(self, work: Work, about: str) -> Generator[RunEvent, None, TakenStep]:
        work.open()
        shared = {f.name: getattr(self.face, f.name) for f in fields(FaceOfShot)}
        view = StepOfShot(**shared, data=self.data, folder=work.folder, find_earlier=self._earlier)
        events = self.effect.run_step(self.key.step, view)
        try:
            for event in events:
                if about and isinstance(event, Progress):
                    event = replace(event, note=f"{about}, {event.note}" if event.note else about)
                yield event
        finally:
            events.close()
            work.drop_if_empty()
        if not self.context.may_write():
            raise JobError(
                "job.lease_lost",
                "another worker took this job over",
                remedy="Nothing to do: it goes on there.",
            )
        taken = work.publish()
        work.drop_abandoned()
        return taken

    def _earlier(self, source: str) -> Path:
        return earlier_result(self.store, source, self.key.kind)


def _key(
    record: ShotRecord,
    analysis: ShotAnalysis,
    settings: RenderSettings,
    effect: StagedEffect,
    track: int,
    name: str,
    before: Mapping[str, TakenStep],
) -> StepKey:
    described = effect.descriptor
    return StepKey(
        described.identifier,
        described.version,
        name,
        track,
        record.key,
        learned_key(settings, effect),
        tuple(step.folder.name for step in before.values()),
        effect.step_key(name, settings.values, frames_of(analysis, track)),
    )


def _missing(store: ShotStore, record: ShotRecord, key: StepKey) -> MissingStep:
    others = [differences(key, step) for step in steps_of_kind(store, record, key.kind, key.track)]
    nearest = min(others, key=len, default=[])
    return MissingStep(key, tuple(nearest), Work(store, record, key).result)
