"""Thumbnails of a style parameter's choices, made from the artist's own plate while nothing else is asked for.

They come through a second session with the server, one at a time and only while the main preview is idle, so that a
slider never waits for more than the one thumbnail that is being made. They are kept in memory and in the user's cache
folder, named by everything they depend on; a folder that cannot be written costs time, nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from host_bridge.client import Client
from host_bridge.effects import Param
from host_bridge.errors import FaceplateError, PanelError
from host_bridge.jobspec import PreviewSpec
from host_bridge.paths import frame_path
from panels.controller.connection import Connection
from panels.controller.notices import Notices
from panels.controller.observe import Errands, Home, Topic
from panels.controller.ppm import read_ppm, write_ppm
from panels.controller.preview import Picture, Preview, picture_of
from panels.controller.work import Work

STYLE = "style"  # the name of the choice parameter that has thumbnails
SIZE = 128
KEPT_FILES = 2000
REST_S = 0.3  # the preview has to be idle for so long
VERSION = 1


class Thumbnails:
    """`ready(choice)`: a thumbnail has arrived. `changed`: all were forgotten, or another one is made."""

    def __init__(
        self,
        home: Home,
        errands: Errands,
        connection: Connection,
        work: Work,
        preview: Preview,
        notices: Notices,
        folder: Path,
    ) -> None:
        self.ready = Topic()
        self.changed = Topic()
        self.busy = ""  # the choice that is made now
        self._home = home
        self._errands = errands
        self._connection = connection
        self._work = work
        self._preview = preview
        self._notices = notices
        self._folder = folder
        self._wanted: tuple[str, ...] = ()
        self._pictures: dict[str, Picture] = {}
        self._failed: set[str] = set()
        self._scene = ""
        self._flying = False
        self._client: Client | None = None
        self._source: Client | None = None
        self._call_off = _nothing
        self._round = 0
        self._complained = False

    @property
    def param(self) -> str:
        """The style parameter of the chosen effect that has thumbnails; "" where there is none."""
        found = self._param()
        return found.name if found is not None else ""

    def get(self, choice: str) -> Picture | None:
        """A choice's thumbnail, if it is there."""
        return self._pictures.get(choice)

    def want(self, choices: Sequence[str]) -> None:
        """Say which choices are visible, in order; () stops. Those that are missing are made one at a time."""
        self._wanted = tuple(choices)
        self.update()

    def update(self) -> None:
        """Plate, frame, effect or preview are others: begin anew where that matters, go on where it does not."""
        if self._client is not None and self._source is not self._connection.client:
            self._connection.dismiss(self._client)
            self._client = self._source = None
        scene = self._scene_now()
        if scene != self._scene:
            self._scene = scene
            self._round += 1  # what is under way is dropped when it arrives
            self.busy = ""
            self._failed.clear()
            had, self._pictures = bool(self._pictures), {}
            if had:
                self.changed.emit()
        self._wait()

    def close(self) -> None:
        """End the second session."""
        self._call_off()
        self._round += 1
        client, self._client = self._client, None
        if client is not None:
            client.close()

    # one at a time

    def _wait(self) -> None:
        self._call_off()
        self._call_off = _nothing
        if self._missing():
            self._call_off = self._home.later(REST_S, self._go_on)

    def _missing(self) -> tuple[str, ...]:
        param = self._param()
        if not self._scene or param is None:
            return ()
        return tuple(
            c for c in self._wanted if c in param.choices and c not in self._pictures and c not in self._failed
        )

    def _go_on(self) -> None:
        self._call_off = _nothing
        missing = self._missing()
        if not missing or self._flying:
            return
        choice, current = missing[0], self._round
        plate = self._work.plate.state.spec
        file = frame_path(plate.pattern, self._work.plate.frame, plate.view)
        self._flying = True

        def looked(outcome: tuple[Path, Picture | None] | FaceplateError) -> None:
            self._flying = False
            if current != self._round:
                self._wait()
            elif isinstance(outcome, FaceplateError):
                self._notices.error(outcome)
            elif outcome[1] is not None:
                self._arrived(choice, outcome[1])
            elif not self._connection.ready or not self._preview.idle:
                self._wait()
            else:
                self._ask(choice, outcome[0])

        scene, folder = self._scene, self._folder
        self._errands.run(lambda: _look_up(folder, scene, choice, file), looked)

    def _ask(self, choice: str, path: Path) -> None:
        spec, client = self._spec(choice), self._session()
        if client is None:
            return
        self.busy, self._flying = choice, True
        self.changed.emit()
        current = self._round

        def answered(outcome: Picture | FaceplateError | None) -> None:
            self._flying = False
            if current != self._round:
                self._wait()
                return
            self.busy = ""
            if isinstance(outcome, Picture):
                self._keep(path, outcome)
                self._arrived(choice, outcome)
                return
            if isinstance(outcome, FaceplateError) and outcome.code != "server.unreachable":
                self._failed.add(choice)  # the preview of that style says why
            self.changed.emit()
            self._wait()

        self._connection.hand_over(client.preview(spec, timeout_s=120.0), picture_of, answered)

    def _arrived(self, choice: str, picture: Picture) -> None:
        self._pictures[choice] = picture
        self.ready.emit(choice)
        self.changed.emit()
        if self._missing():
            self._call_off()
            self._call_off = self._home.later(0.0, self._go_on)

    def _session(self) -> Client | None:
        """The second session, with the server the panel is connected to now."""
        if self._client is None:
            self._source = self._connection.client
            self._client = self._connection.second_client("faceplate panel thumbnails")
        return self._client

    # what a thumbnail depends on

    def _param(self) -> Param | None:
        params = self._work.values.params
        return next((p for p in params if p.name == STYLE and p.type == "choice" and len(p.choices) > 1), None)

    def _scene_now(self) -> str:
        """All but the choice: effect, what the style depends on, plate, frame and face. "" when there is nothing."""
        param, effect, plate = self._param(), self._work.effects.current, self._work.plate.state
        if param is None or effect is None or plate.found is None:
            return ""
        depends = self._work.values.value(param.depends, 0) if param.depends else ""
        frame = self._work.plate.frame
        seen = [effect.identifier, effect.version, param.name, depends, asdict(plate.spec), plate.ocio, frame]
        return json.dumps([VERSION, *seen, self._work.face, plate.style_image], sort_keys=True)

    def _spec(self, choice: str) -> PreviewSpec:
        """The style as the effect comes, with what the style depends on; no other value of the artist's."""
        param = self._param()
        assert param is not None
        job = self._work.job()
        params = {k: v for k, v in job.params.items() if k == param.depends}
        job = replace(job, params={**params, param.name: choice}, edits=[], mask=None)
        return PreviewSpec(job, self._work.plate.frame, SIZE)

    def _keep(self, path: Path, picture: Picture) -> None:
        def kept(outcome: FaceplateError | None) -> None:
            if outcome is not None and not self._complained:
                self._complained = True
                self._notices.warning(outcome.message, outcome.remedy)

        self._errands.run(lambda: _store(path, picture), kept)


def _look_up(folder: Path, scene: str, choice: str, file: str) -> tuple[Path, Picture | None]:
    """Where the thumbnail of a scene and choice is kept, and what is there."""
    digest = hashlib.sha256(f"{scene} {_stamp_of(file)} {choice}".encode()).hexdigest()
    path = folder / f"{digest[:32]}.ppm"
    return path, read_ppm(path)


def _store(path: Path, picture: Picture) -> None:
    """Keep a thumbnail, and no more than `KEPT_FILES`, the newest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_ppm(path, picture)
        files = sorted(path.parent.glob("*.ppm"), key=lambda p: p.stat().st_mtime)
        for old in files[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise PanelError(
            "panel.cache",
            f"Thumbnails are not kept between sessions: {error.strerror} [{path.parent}]",
            path=str(path.parent),
            remedy="Set FACEPLATE_CACHE to a folder that can be written.",
        ) from error


def _stamp_of(path: str) -> tuple[int, int]:
    """Size and time of the frame's file, so that a plate that was written again is another; (0, 0) where only the
    server sees it."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _nothing() -> None:
    """Nothing is to be called off."""
