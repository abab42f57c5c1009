"""Puts the controller's parts together: who follows whom, what begins it and what ends it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from host_bridge.curves import Curve
from host_bridge.effects import EffectDescriptor
from host_bridge.errors import FaceplateError
from host_bridge.hosts.base import Host, HostShot, cache_dir, remember_effects, remembered_effects
from host_bridge.jobspec import JobSpec
from panels.controller.connection import Connection
from panels.controller.document import EditRow, EffectState, History, Setting
from panels.controller.faces import Faces
from panels.controller.jobs import Jobs
from panels.controller.models import Models
from panels.controller.notices import Notices
from panels.controller.observe import Errands, Home, Topic
from panels.controller.plate import Plate
from panels.controller.presets import Presets
from panels.controller.preview import Preview
from panels.controller.render import Render
from panels.controller.server import Server
from panels.controller.thumbnails import Thumbnails
from panels.controller.values import Effects, Values
from panels.controller.work import Work
from panels.presets import shared_folders, user_folder

CLOSE_S = 1.0
KEEP_S = 0.5  # values are stored in the host so long after the last change


@dataclass(frozen=True)
class PanelOptions:
    """What the panel begins with. `connect`: start (this machine's server, started if need be), attach (only if one
    runs), none (wait for the artist), or an endpoint. Folders "" = the user's own."""

    connect: str = "start"
    plate: str = ""
    effect: str = ""
    colorspace: str = ""
    output: str = ""
    preset_folder: str = ""
    shared_presets: tuple[str, ...] = ()
    cache_folder: str = ""


class Controller:
    """See the package. Lives on `home`; nothing happens before `open`. `shot_changed`: the host's shot is another."""

    def __init__(self, home: Home, host: Host | None = None, options: PanelOptions | None = None) -> None:
        self.options = options or PanelOptions()
        self.host = host
        self.shot: HostShot | None = None  # what the host said it works on, last
        self.shot_changed = Topic()
        self.notices = Notices()
        self.history = History()
        self._home = home
        self._errands = errands = Errands(home)
        self.connection = Connection(home, errands)
        self.effects = Effects(self.connection, self.history)
        self.plate = Plate(self.connection)
        self.values = Values(self.effects, self.history, lambda: self.plate.frame)
        self.work = work = Work(self.plate, self.effects, self.values, self.history)
        self.preview = Preview(home, self.connection, work)
        self.jobs = Jobs(home, self.connection, self.notices)
        self.faces = Faces(home, self.connection, work, self.jobs, self.notices)
        self.render = Render(work, self.jobs, self.notices, errands, host)
        self.models = Models(home, self.connection, self.notices)
        self.server = Server(home, self.connection, self._busy)
        options = self.options
        cache = Path(options.cache_folder) if options.cache_folder else cache_dir()
        self.thumbnails = Thumbnails(
            home, errands, self.connection, work, self.preview, self.notices, cache / "thumbnails"
        )
        own = Path(options.preset_folder) if options.preset_folder else user_folder()
        shared = tuple(Path(p) for p in options.shared_presets) or shared_folders()
        self.presets = Presets(work, errands, own, shared)
        self._opened = self._closed = False
        self._pattern = ""
        self._pending: JobSpec | None = None  # the host's effect and values, until the effects are listed
        self._keep: Callable[[], None] | None = None
        self._kept: JobSpec | None = None
        self._wire()

    def open(self) -> None:
        """Begin: connect as the options say, and look at what the host works on. Called when the panel is shown first;
        harmless when done twice."""
        if self._opened:
            return
        self._opened = True
        options = self.options
        self.effects.wanted = options.effect
        if options.colorspace:
            self.plate.set(colorspace=options.colorspace)
        if options.plate:
            self.plate.open(options.plate)
        if options.output:
            self.render.set(output=options.output)
        self._errands.run(remembered_effects, self._remembered)
        self.presets.refresh()
        elsewhere = os.environ.get("FACEPLATE_SERVER", "")
        if options.connect == "start" and not elsewhere:
            self.connection.start()
        elif options.connect in ("start", "attach"):
            self.connection.attach()
        elif options.connect != "none":
            self.connection.connect_to(options.connect)
        if self.host is not None and not options.plate:
            self.take_from_host()

    def close(self) -> None:
        """End connections, threads and timers. Harmless when done twice."""
        if self._closed:
            return
        self._closed = True
        if self._keep is not None:
            self._keep()
        self.thumbnails.close()
        self.connection.close()
        self._errands.join(CLOSE_S)

    # the host

    def take_from_host(self) -> None:
        """Look at what is selected in the host now: plate, frame, effect and values."""
        if self.host is not None:
            self._errands.run(self.host.shot, self._took)

    def keep_in_host(self) -> None:
        """Store effect, values, face and mask where the host keeps them, unless they are there already."""
        host, shot = self.host, self.shot
        if host is None or shot is None or self.effects.current is None:
            return
        job = replace(self.render.job(), output=shot.job.output)
        if job == self._kept:
            return
        self._kept = job

        def kept(outcome: FaceplateError | None) -> None:
            if outcome is not None:
                self._kept = None
                self.notices.error(outcome)

        self._errands.run(lambda: host.keep(job), kept)

    def show_frame_in_host(self) -> None:
        """Let the host show the frame that is looked at here."""
        host, frame = self.host, self.plate.frame
        if host is not None:
            self._errands.run(lambda: host.go_to(frame), self._complain)

    # inside

    def _wire(self) -> None:
        self.connection.welcomed.connect(self._welcomed)
        self.connection.changed.connect(self._follow)
        self.effects.changed.connect(self._listed)
        self.effects.listed.connect(lambda found: self._errands.run(lambda: remember_effects(found), _ignore))
        self.history.changed.connect(self._document_changed)
        self.plate.changed.connect(self._plate_changed)
        self.plate.frame_changed.connect(lambda _: self._frame_changed())
        self.preview.changed.connect(self.thumbnails.update)
        self.preview.changed.connect(self.server.update)
        self.jobs.changed.connect(self.server.update)
        self.jobs.ended.connect(self._job_ended)
        self.faces.changed.connect(self.preview.update)
        self.faces.applied.connect(self.preview.refresh)
        self.models.imported.connect(self.effects.refresh)
        self.models.imported.connect(self.preview.retry)

    def _busy(self) -> bool:
        return self.preview.state.busy or self.jobs.busy

    def _follow(self) -> None:
        self.preview.update()
        self.thumbnails.update()
        self.server.update()
        self.render.changed.emit()

    def _welcomed(self, restarted: bool) -> None:
        self.effects.refresh()
        self.plate.refresh()
        self.jobs.welcomed()
        self.models.welcomed(restarted)
        self.faces.update()
        self.preview.retry()

    def _listed(self) -> None:
        if self._pending is not None and self.effects.find(self._pending.effect) is not None:
            job, self._pending = self._pending, None
            self._take_values(job)
        self._follow()

    def _remembered(self, outcome: tuple[EffectDescriptor, ...] | FaceplateError) -> None:
        """Controls can be shown before a server answers."""
        if not isinstance(outcome, FaceplateError) and outcome and not self.effects.descriptors:
            self.effects.remembered(outcome)

    def _document_changed(self) -> None:
        self._follow()
        self.faces.values_changed()
        if self.host is not None and self.shot is not None:
            if self._keep is not None:
                self._keep()
            self._keep = self._home.later(KEEP_S, self.keep_in_host)

    def _plate_changed(self) -> None:
        if self.plate.state.spec.pattern != self._pattern:
            self._pattern = self.plate.state.spec.pattern
            self.faces.forget()
        elif self.plate.state.ready:
            self.faces.update()
        self._follow()

    def _frame_changed(self) -> None:
        self.faces.update()
        self.preview.update()
        self.thumbnails.update()

    def _job_ended(self, job_id: str) -> None:
        """After an analysis, an adaptation or a render previews are made from the whole shot, and faces are tracks."""
        row = self.jobs.find(job_id)
        if row is not None and row.kind in ("analyse", "adapt", "render") and row.state == "finished":
            self.preview.refresh()
            self.faces.update()

    def _took(self, outcome: HostShot | FaceplateError) -> None:
        if isinstance(outcome, FaceplateError):
            self.notices.error(outcome)
            return
        self.shot, job = outcome, outcome.job
        self.work.face = job.face
        self.plate.take(job, outcome.frame)
        self.render.set(
            output=job.output,
            frames=job.frames,
            compression=job.compression,
            matte_output=job.matte_output,
            matte_channels=tuple(job.matte_channels),
            skip_existing=job.skip_existing,
            continue_on_error=job.continue_on_error,
        )
        if job.effect:
            self._pending = job
            self._listed()
        if outcome.note:
            self.notices.info(outcome.note)
        self.shot_changed.emit()

    def _take_values(self, job: JobSpec) -> None:
        """The host's effect and values: where the artist starts from."""

        def setting(value: object) -> Setting:
            return Setting(Curve.from_json(value), isinstance(value, dict))

        try:
            params = {name: setting(value) for name, value in job.params.items()}
            edits = tuple(EditRow(str(name), setting(value)) for name, value in job.edits)
        except FaceplateError as error:
            self.notices.error(error)
            return
        state = EffectState(params, edits)
        self.history.rebase(lambda document: replace(document, effect=job.effect).with_state(state))
        self.history.forget()
        self._kept = replace(self.render.job(), output=job.output)

    def _complain(self, outcome: FaceplateError | None) -> None:
        if outcome is not None:
            self.notices.error(outcome)


def _ignore(_: object) -> None:
    """The outcome is of no interest: it is logged, and costs the next session a question."""
