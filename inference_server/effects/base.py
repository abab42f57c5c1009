"""The contract between an effect and the pipeline.

The pipeline reads the plate, finds and crops the face region, and hands an effect one `FaceInput`. The effect
returns an `EffectOutput`: a picture or a gain, the warp it applied if any, and the matte of what it touches. The
pipeline does the rest: grain, values the working space cannot hold, masks, mix, composite, writing.

Two spaces: `scene` is scene-linear Rec.709/sRGB primaries, unpremultiplied, unbounded (above 1 and below 0
occur), finite. `picture` is display-encoded sRGB in 0..1 after the shot's fixed work exposure.

How the pipeline builds E, the edited plate, in scene-linear (W moves pixels along `warp`):

    picture is None:   E = W(base) * gain + grain         scene = base + grain
    picture is given:  E = scene(picture) + W(residual) + grain_amount * grain
                       residual = scene - scene(clip(picture of scene))

and R, the reconstruction: `scene`, or scene(reference) + residual where `reference` is given.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray
from torch import Tensor

from host_bridge.curves import Value
from host_bridge.effects import EffectDescriptor, EffectValues
from inference_server.faces.types import FaceFrame
from inference_server.models.store import ModelStore
from inference_server.plates.types import Window
from inference_server.runs import RunEvent

Arrays = Mapping[str, NDArray[Any]]


def _unheard(text: str, done: float) -> None:
    """Where nobody wants to know."""


def _no_maps(frame: int) -> Arrays:
    return {}


@dataclass(frozen=True)
class Resources:
    """What an effect is made with.

    models  the imported models; an effect loads what it needs when it first needs it
    memory  bytes of the device that one frame's work may take
    report  (text, done in 0..1): a long step besides frames is under way, "loading ..."
    """

    device: str = "cpu"
    models: ModelStore = field(default_factory=ModelStore)
    memory: int = 8 << 30
    report: Callable[[str, float], None] = _unheard


@dataclass(frozen=True)
class ShotData:
    """What an effect's `analyse` learned of one face over the shot; empty for effects that have none.

    arrays  name -> array for the whole shot
    maps    frame -> name -> array of that frame, read when asked for
    scale   pixels of this rendering to one of the plate's: 1, below 1 in a reduced preview. Arrays and maps speak of
            the plate's pixels.
    steps   name -> folder of every long step that has been taken with these values (see StagedEffect). A render has
            them all; a preview is made with those there are
    """

    arrays: Arrays = field(default_factory=dict)
    maps: Callable[[int], Arrays] = _no_maps
    scale: float = 1.0
    steps: Mapping[str, Path] = field(default_factory=dict)


NO_DATA = ShotData()


@dataclass(frozen=True)
class FaceInput:
    """One face of one frame, cropped.

    scene      [3, h, w] float32 scene-linear, see module docstring
    picture    [3, h, w] float32 display-encoded sRGB, 0..1
    mattes     name -> [h, w] float32 0..1: face, skin, brows, eyes, nose, lips, mouth, ears, hair, neck, hat as far
               as the source allows (a missing region is absent, not zero)
    region     where the crop lies, seen from the display window's corner; landmark (x, y) is crop pixel
               (x - region.x0, y - region.y0)
    values     every parameter of the descriptor at this frame
    edits      ordered (direction, strength)
    style      [3, H, W] display-encoded sRGB exemplar, or None
    shot       what this effect's own `analyse` learned of this face over the shot
    """

    frame: int
    scene: Tensor
    picture: Tensor
    face: FaceFrame
    mattes: Mapping[str, Tensor]
    region: Window
    values: Mapping[str, Value]
    edits: tuple[tuple[str, float], ...] = ()
    style: Tensor | None = None
    shot: ShotData = NO_DATA


@dataclass(frozen=True)
class EffectOutput:
    """What an effect did to a crop; sizes as in its FaceInput.

    matte      [h, w] 0..1, covers all that was touched (source and edited silhouette and the warped band around
               them) and is 0 along the crop's edge unless the crop ends at the data window
    warp       [2, h, w] (dx, dy) in pixels: the edited picture at p shows the source at p + warp(p); 0 where matte is 0
    gain       [3, h, w] > 0, only where `picture` is None
    picture    [3, h, w] edited picture, display-encoded sRGB 0..1, already warped
    reference  [3, h, w] the effect's reconstruction of the source, display-encoded sRGB, unwarped
    """

    matte: Tensor
    warp: Tensor | None = None
    gain: Tensor | None = None
    picture: Tensor | None = None
    reference: Tensor | None = None


class Effect(Protocol):
    """What a worker holds for one effect: made once, used for every frame, no state between frames."""

    @property
    def descriptor(self) -> EffectDescriptor: ...

    def region(self, face: FaceFrame, values: Mapping[str, Value], shot: ShotData = NO_DATA) -> Window:
        """The part of the plate this effect needs for the face, before clipping to the data window."""
        ...

    def is_identity(self, values: Mapping[str, Value], edits: tuple[tuple[str, float], ...]) -> bool:
        """Whether these values leave the plate as it is, so that the frame is a copy of the file."""
        ...

    def render(self, face: FaceInput) -> EffectOutput:
        """Do it. A pure function of its argument: same input, same bits, in any order of frames."""
        ...


class ShotView(Protocol):
    """One face of a shot, as an effect's `analyse` sees it, and where it puts what it learns.

    frames  the shot's frames in which the face is, in order
    cuts    the shot's frames at which another take begins
    window  the display window, seen from its corner
    values  the job's parameters; only those that `shot_key` names may be read
    style   the job's Style picture, [3, H, W] display-encoded sRGB; what is learned is kept by its content
    """

    @property
    def track(self) -> int: ...

    @property
    def frames(self) -> tuple[int, ...]: ...

    @property
    def cuts(self) -> tuple[int, ...]: ...

    @property
    def window(self) -> Window: ...

    @property
    def values(self) -> EffectValues: ...

    @property
    def style(self) -> Tensor | None: ...

    def face(self, frame: int) -> FaceFrame:
        """The face in one of `frames`."""
        ...

    def inputs(self, frames: Sequence[int], region: Callable[[FaceFrame], Window]) -> Iterator[FaceInput]:
        """The frames in that order, decoded ahead, cropped to what `region` says (clipped to the data window)."""
        ...

    def put(self, name: str, array: NDArray[Any]) -> None:
        """Keep an array for the whole shot."""
        ...

    def put_maps(self, frame: int, arrays: Arrays) -> None:
        """Keep arrays of one frame; they go to disk at once."""
        ...


@runtime_checkable
class ShotEffect(Effect, Protocol):
    """An effect that learns something of the shot before it renders, and plans what its networks take.

    What `analyse` learns is stored with the shot and used by every render of any part of it. Its parameters therefore
    do not animate. It is a generator that yields events between uninterruptible steps.
    """

    def shot_key(self, values: EffectValues) -> Mapping[str, Any]:
        """Everything besides the shot's own analysis that `analyse` depends on, as JSON: parameters, model hashes.

        Raises EffectError or ModelError where the values ask for what is not there.
        """
        ...

    def analyse(self, shot: ShotView) -> Generator[RunEvent, None, None]:
        """Learn and `put`."""
        ...

    def plan(self, values: EffectValues, shots: Mapping[int, ShotData]) -> Mapping[str, Any]:
        """The numeric plan of a job (precision, batch, sizes), as JSON, the same for every chunk of the shot.

        Raises JobError `job.out_of_memory`, saying what would fit, before any frame is begun.
        """
        ...

    def models(self, values: EffectValues) -> Mapping[str, str]:
        """Model id -> sha256 and licence of every model that the pixels depend on, for the picture's metadata."""
        ...


Times = Mapping[int, tuple[int, int, float]]
"""Frame -> the two frames of the shot that it lies between, and the later one's share (0: it is the earlier one)."""


@runtime_checkable
class RetimableEffect(ShotEffect, Protocol):
    """An effect that can draw what lies between two frames of its shot."""

    def retimed(self, shot: ShotData, times: Times) -> ShotData:
        """What `render` needs of those frames in the place of the shot's own, interpolated linearly."""
        ...


class StepView(Protocol):
    """One face of a shot, as a long step sees it: what a ShotView shows, and where to put the result.

    track, frames, window, values, style, face, inputs   as in ShotView
    data    what `analyse` learned, and the folders of the steps before this one
    folder  where the step puts its result, in files of its own choice. What a killed or cancelled run of the same step
            (same key) left there is still there, so that it can go on.
    """

    @property
    def track(self) -> int: ...

    @property
    def frames(self) -> tuple[int, ...]: ...

    @property
    def window(self) -> Window: ...

    @property
    def values(self) -> EffectValues: ...

    @property
    def style(self) -> Tensor | None: ...

    def face(self, frame: int) -> FaceFrame: ...

    def inputs(self, frames: Sequence[int], region: Callable[[FaceFrame], Window]) -> Iterator[FaceInput]: ...

    @property
    def data(self) -> ShotData: ...

    @property
    def folder(self) -> Path: ...

    def earlier(self, source: str) -> Path:
        """The result of the same step that is kept under an actor's name, or that of the same effect in another shot.

        ShotError `shot.not_adapted` where there is none.
        """
        ...


@runtime_checkable
class StagedEffect(ShotEffect, Protocol):
    """An effect with steps that take minutes: they are jobs of their own (`adapt`), and a render only reads them.

    A render whose values need a step that has not been taken with just these values is refused, and says which job to
    run; nothing that was made for other values is ever taken. A preview is not refused: its `ShotData.steps` lacks
    what has not been taken, the effect shows what it can without, and the picture is marked as not final.

    The names of all steps that values may need are the descriptor's `steps`.
    """

    def steps(self, values: EffectValues) -> tuple[str, ...]:
        """The steps these values need, in order; each may build on those before it."""
        ...

    def step_key(self, step: str, values: EffectValues, frames: Sequence[int]) -> Mapping[str, Any]:
        """Everything that the step depends on besides `shot_key` and the steps before it, as JSON.

        `frames` are those of the shot in which the face is; a curve is best sampled there. The names are shown to the
        artist where something was made for other values: "strengths", "iterations", "models".
        """
        ...

    def kept_as(self, step: str, values: EffectValues) -> str:
        """The actor's name under which other shots are to find the result (`StepView.earlier`); "" = none."""
        ...

    def run_step(self, step: str, shot: StepView) -> Generator[RunEvent, None, None]:
        """Take it; what is in `shot.folder` when this returns is the result. Closing the generator cancels it.

        The step says how far it is with `effects.steps.note_result` whenever what is in the folder could be used as
        it is: the best so far of a cancelled run is what the artist may accept. What only going on needs lies in the
        folder `effects.steps.RUN` and is dropped from the result. Progress has the step's name as its stage.
        """
        ...


@runtime_checkable
class RecurrentEffect(Effect, Protocol):
    """An effect whose picture of a frame builds on the frames before it.

    Its descriptor says over how many frames (`segment`) and after how many it has settled (`preroll`); the pipeline
    walks it over a fixed grid of the shot (inference_server.recurrence) and keeps what it remembers, so that a frame is
    the same whoever renders it. `render` is the frame with none before it, for a preview.
    """

    def is_recurrent(self, values: EffectValues) -> bool:
        """Whether these values make use of it; otherwise frames are rendered one by one."""
        ...

    def advance(self, face: FaceInput, memory: Any | None) -> tuple[Tensor, Any]:
        """Take one frame: what was drawn of it, and the memory for the next; `memory` None: nothing came before.

        What was drawn is one tensor, of any shape that is the same over the shot, linear enough to be cross-faded. The
        face comes from the plate, untouched by other faces, and without mattes. A pure function of its arguments.
        """
        ...

    def finish(self, face: FaceInput, drawn: Tensor) -> EffectOutput:
        """The effect's output of that frame, or of one that holds its picture. A pure function of its arguments."""
        ...
