"""Puts the controller's parts together, and starts and ends them."""

from __future__ import annotations

from dataclasses import dataclass

from host_bridge.hosts.base import Host, HostShot
from panels.controller.connection import Connection
from panels.controller.document import History
from panels.controller.faces import Faces
from panels.controller.jobs import Jobs
from panels.controller.models import Models
from panels.controller.notices import Notices
from panels.controller.observe import Home
from panels.controller.plate import Plate
from panels.controller.presets import Presets
from panels.controller.preview import Preview
from panels.controller.render import Render
from panels.controller.server import Server
from panels.controller.thumbnails import Thumbnails
from panels.controller.values import Effects, Values


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
    """See the package. Lives on `home`; nothing happens before `open`."""

    connection: Connection
    effects: Effects
    values: Values
    history: History
    plate: Plate
    preview: Preview
    thumbnails: Thumbnails
    faces: Faces
    render: Render
    jobs: Jobs
    models: Models
    server: Server
    presets: Presets
    notices: Notices
    host: Host | None
    shot: HostShot | None  # what the host said it works on, last

    def __init__(self, home: Home, host: Host | None = None, options: PanelOptions | None = None) -> None:
        raise NotImplementedError

    def open(self) -> None:
        """Begin: connect as the options say, and look at what the host works on. Called when the panel is shown first;
        harmless when done twice."""

    def take_from_host(self) -> None:
        """Look at what is selected in the host now: plate, frame, effect and values."""

    def keep_in_host(self) -> None:
        """Store effect, values, face and mask where the host keeps them."""

    def close(self) -> None:
        """End connections, threads and timers."""
