"""What made a picture, written into it and read back: enough to render it again, and to tell edited pictures apart.

Attributes `faceplate:*`, all strings, in every part. No date, host, user or job id: the same job gives the same
bytes. A plate that Faceplate made before keeps what it says in `faceplate:history`, oldest first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from host_bridge.errors import FaceplateError
from inference_server.plates.attributes import decode, encode
from inference_server.plates.exr import is_exr, read_exr_header
from inference_server.plates.images import PROVENANCE_PREFIX, read_description
from inference_server.plates.reader import read_bytes
from inference_server.plates.types import Attribute, PlateFrame

PREFIX = "faceplate:"
_JSON_FIELDS = ("parameters", "models", "history")


@dataclass(frozen=True)
class Provenance:
    """`parameters` are the job's (curves included), `models` model id -> sha256 (and licence, as the caller words it).

    `job` is `job_hash` of the job, `shot` the shot's id, `plan` the numeric plan as text, `version` Faceplate's.
    """

    effect: str
    version: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    job: str = ""
    shot: str = ""
    plan: str = ""
    history: tuple[Mapping[str, Any], ...] = ()

    def attributes(self, plate: PlateFrame | None = None) -> dict[str, Attribute]:
        """Header attributes; what `plate` says about its own making becomes the newest entry of the history."""
        texts = self.texts(provenance_of(plate.parts[0].header) if plate is not None else None)
        return {PREFIX + name: encode("string", text) for name, text in texts.items()}

    def texts(self, earlier: Provenance | None = None) -> dict[str, str]:
        """The fields that are not empty, as text."""
        fields = asdict(self)
        if earlier is not None:
            before = {k: v for k, v in asdict(earlier).items() if k != "history" and v}
            fields["history"] = [*earlier.history, before]
        return {
            name: json.dumps(value, sort_keys=True, separators=(",", ":")) if name in _JSON_FIELDS else str(value)
            for name, value in fields.items()
            if value
        }


def _from_texts(texts: Mapping[str, str]) -> Provenance | None:
    """Rebuild from `texts()`; None where there is no effect or a field is not what this version writes."""
    known = {k: v for k, v in texts.items() if k in Provenance.__dataclass_fields__}
    if not known.get("effect"):
        return None
    try:
        values: dict[str, Any] = {k: json.loads(v) if k in _JSON_FIELDS else v for k, v in known.items()}
    except ValueError:
        return None
    return Provenance(**{"version": "", **values, "history": tuple(values.get("history", ()))})


def provenance_of(header: Mapping[str, Attribute]) -> Provenance | None:
    """What a part's header says, or None."""
    texts = {
        name[len(PREFIX) :]: str(decode(attribute))
        for name, attribute in header.items()
        if name.startswith(PREFIX) and attribute.type == "string"
    }
    return _from_texts(texts)


def read_provenance(path: str) -> Provenance | None:
    """What made the picture at `path`; None if Faceplate did not (a copy at strength 0 says nothing: it is the plate).

    Raises PlateError as `read_plate` does, without decoding pixels.
    """
    data = read_bytes(path)
    try:
        if is_exr(data):
            return provenance_of(read_exr_header(data).parts[0].attributes)
        description = read_description(path)
    except FaceplateError as error:
        raise error.at(path=path) from error.__cause__
    lines = [line for line in description.split("\n") if line.startswith(PROVENANCE_PREFIX)]
    if not lines:
        return None
    try:
        texts = json.loads(lines[-1][len(PROVENANCE_PREFIX) :])
    except ValueError:
        return None
    return _from_texts(texts) if isinstance(texts, dict) else None
