"""What a plate is, before anything is done with it: which frames there are, how large, which layers, which colours.

Nothing is decoded: file names, the header of the first frame that can be read, and the records of the shot store. So
an answer takes milliseconds, on any thread, while a device renders. Needs no torch.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

from host_bridge.errors import FaceplateError, PlateError
from host_bridge.jobspec import PlateSpec
from host_bridge.messages import Color, Plate
from inference_server.config import ServerConfig
from inference_server.plates.attributes import decode
from inference_server.plates.color import ColorConfig
from inference_server.plates.exrheader import COMPRESSIONS
from inference_server.plates.layers import choose, layers_of, views_of
from inference_server.plates.reader import read_outline
from inference_server.plates.sequence import Sequence, find_sequence, format_frames, views_on_disk
from inference_server.plates.types import PlateFrame
from inference_server.shots.store import AnalysisSettings, ShotRecord, ShotStore


class Describer:
    """Answers for one server's settings. Thread-safe."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._colors = lru_cache(maxsize=4)(ColorConfig)
        self._store = ShotStore(config.shots_path)

    def color(self, ocio: str = "") -> Color:
        """What an OCIO config offers. ColorError `color.config` where it cannot be read."""
        config = ColorConfig(ocio or self._config.ocio)  # read anew: somebody may just be working on it
        return Color(config.source, config.hash, config.spaces(), config.roles(), config.displays())

    def plate(self, plate: PlateSpec, ocio: str = "") -> Plate:
        """What a plate is. A layer or part that it lacks is no error: the answer says which there are.

        Raises PlateError where no frame can be found or read, ColorError.
        """
        config = self._colors(ocio or self._config.ocio)
        space = config.resolve(plate.colorspace)
        sequence = find_sequence(plate.pattern, plate.view)
        settings = AnalysisSettings.of(plate, space, config.hash, sequence.pattern.view)
        frame = _first_readable(sequence)
        part = frame.parts[_treated(frame, settings)]
        window = part.display_window
        codec = part.header.get("compression")
        return Plate(
            frames=format_frames(sequence.frames),
            first=sequence.frames[0],
            last=sequence.frames[-1],
            width=window.width,
            height=window.height,
            pixel_aspect=part.pixel_aspect,
            colorspace=space,
            compression=COMPRESSIONS[decode(codec)] if codec is not None and codec.type == "compression" else "",
            parts=[p.name or str(index) for index, p in enumerate(frame.parts)],
            layers=_layers(frame, settings),
            views=_pattern_views(plate.pattern) or views_of(frame),
            shots=[record.id for record in self._shots(sequence, settings)],
        )

    def _shots(self, sequence: Sequence, settings: AnalysisSettings) -> list[ShotRecord]:
        """Shots analysed with these settings that hold frames of this plate, the one a job would find first."""
        found = [r for r in self._store.records() if r.settings == settings and self._holds(r, sequence)]
        return sorted(found, key=lambda r: (r.narrowed, not r.locked, -len(r.frames), r.created))

    def _holds(self, record: ShotRecord, sequence: Sequence) -> bool:
        """Whether the first and last frame that both have are the same."""
        both = sorted(record.frames.keys() & sequence.files.keys())
        try:
            same = [self._store.digests.of(sequence.files[f]) == record.frames[f] for f in (both[:1] + both[-1:])]
        except OSError:
            return False  # a frame that cannot be read is none that a shot could be used for
        return bool(same) and all(same)


def _first_readable(sequence: Sequence) -> PlateFrame:
    """The first frame whose header can be read, else the first one's error."""
    failure: FaceplateError | None = None
    for number, path in sequence.files.items():
        try:
            return read_outline(path, number)
        except FaceplateError as error:
            failure = failure or error
    assert failure is not None  # a sequence has frames
    raise failure


def _pattern_views(pattern: str) -> list[str]:
    """The views of a %V pattern: of the names that it could stand for, those that have frames."""
    views = []
    for view in views_on_disk(pattern):
        with suppress(PlateError):
            find_sequence(pattern, view)
            views.append(view)
    return views


def _treated(frame: PlateFrame, settings: AnalysisSettings) -> int:
    """The part that jobs treat; the first where the artist has yet to choose."""
    try:
        return choose(frame, settings.layer, settings.part, settings.view).part
    except FaceplateError:
        return 0


def _layers(frame: PlateFrame, settings: AnalysisSettings) -> list[str]:
    try:
        return layers_of(frame, settings.part, settings.view)
    except FaceplateError:
        return layers_of(frame)
