"""What a job is: everything that decides a render's pixels, and nothing about who asked or when.

Frozen dataclasses of plain JSON types. The same object is built by the CLI, the panel and the hosts, travels
in `submit_job`, is stored by the server, and (as `job_hash`) is what a finished frame is recognised by.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

MISSING_POLICIES = ("error", "hold", "skip", "interpolate")
PREMULT_MODES = ("auto", "premultiplied", "straight", "ignore")
MASK_MODES = ("intersect", "replace", "subtract", "union")
MATTE_NAMES = (
    "face",
    "skin",
    "brows",
    "eyes",
    "nose",
    "lips",
    "mouth",
    "ears",
    "hair",
    "neck",
    "hat",
    "composite",
)


@dataclass(frozen=True)
class PlateSpec:
    """Where frames come from. `pattern` as artists write it (`%04d`, `####`, `$F4`, `%V`).

    `colorspace` is an OCIO name or "" for the config's scene_linear role. `layer` is a channel prefix ("" = the
    R, G, B, A of the part), `part` a part name or index as text, `view` a view name; "" means the first.
    """

    pattern: str
    colorspace: str = ""
    premult: str = "auto"
    layer: str = ""
    part: str = ""
    view: str = ""
    missing: str = "error"


@dataclass(frozen=True)
class MaskSpec:
    """An artist's matte: `replace` uses it as the matte, the others combine it with the effect's own.

    `subtract` is the holdout for hands, hair and microphones in front of the face.
    """

    pattern: str
    channel: str = "A"
    mode: str = "intersect"


@dataclass(frozen=True)
class JobSpec:
    """A job. `kind` is `analyse`, `render`, `repair` or `adapt`.

    `frames` is a frame range as text ("" = every frame on disk); `shot` an analysed shot's id or "" to
    find or make it; `shot_range` narrows what counts as the shot. `params` maps a parameter of the effect to a
    value or `{"keys": [[frame, value], ...]}`; `edits` is the ordered list of [direction, value-or-keys].
    `ocio` is a config path or "" for $OCIO or the built-in one; `ocio_hash` the client's, "" = not checked.
    `compression` "" writes what was read. A `repair` analyses `shot` again with `repairs` (the content of a repair
    file, see `faceplate shots edit`) in place of those it has. An `adapt` takes the long steps that `effect` needs with
    these values, `steps` (or, without any, all of them); with `accept` the best so far of a run that was stopped is
    taken as it is. `retime` is the speed's reciprocal: at 2 a render makes twice as many frames, numbered from the
    shot's first on (see inference_server/retiming.py).
    """

    kind: str
    plate: PlateSpec
    frames: str = ""
    shot: str = ""
    shot_range: str = ""
    effect: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    edits: list[list[Any]] = field(default_factory=list)
    output: str = ""
    matte_output: str = ""
    matte_channels: list[str] = field(default_factory=list)
    compression: str = ""
    mask: MaskSpec | None = None
    style_image: str = ""
    face: str = "largest"
    ocio: str = ""
    ocio_hash: str = ""
    skip_existing: bool = False
    continue_on_error: bool = False
    repairs: dict[str, Any] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    accept: bool = False
    retime: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class PreviewSpec:
    """One picture to look at: the job's effect and values at `frame`.

    `max_size` bounds the longer side in pixels; `crop` `face` shows the effect's region, `frame` all of it;
    `show` is `result`, `plate` or `matte`. `display`, `view`, `exposure` (stops) and `gamma` are the viewer's; "" means
    plain sRGB.
    """

    job: JobSpec
    frame: int
    max_size: int = 512
    crop: str = "face"
    show: str = "result"
    display: str = ""
    view: str = ""
    exposure: float = 0.0
    gamma: float = 1.0


def job_from_json(data: dict[str, Any]) -> JobSpec:
    """Rebuild a job from `to_json()` of this or an older minor version (missing fields take their defaults)."""
    fields = {k: v for k, v in data.items() if k in JobSpec.__dataclass_fields__}
    plate = {k: v for k, v in fields["plate"].items() if k in PlateSpec.__dataclass_fields__}
    mask = fields.get("mask")
    if mask is not None:
        mask = MaskSpec(**{k: v for k, v in mask.items() if k in MaskSpec.__dataclass_fields__})
    return JobSpec(**{**fields, "plate": PlateSpec(**plate), "mask": mask})


def job_hash(spec: JobSpec, extra: str = "") -> str:
    """16 hex digits over everything in the job that decides a frame's pixels; `extra` carries what the server adds.

    Paths are left out (the server adds the digests of what lies there: the same plate may be mounted elsewhere), and so
    are the frame range and the run's policies: a frame is the same in any chunk.
    """
    plate = replace(spec.plate, pattern="", missing="")
    mask = replace(spec.mask, pattern="") if spec.mask else None
    spec = replace(spec, plate=plate, mask=mask, frames="", shot="", shot_range="", output="", matte_output="")
    spec = replace(
        spec, style_image="", ocio="", ocio_hash="", skip_existing=False, continue_on_error=False, repairs={}
    )
    fields = spec.to_json()
    del fields["steps"], fields["accept"]
    if spec.retime == 1:
        del fields["retime"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":")) + extra
    return hashlib.sha256(text.encode()).hexdigest()[:16]
