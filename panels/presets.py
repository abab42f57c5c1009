"""Presets as files: an effect's values and edits in readable JSON that can be mailed, versioned and put in a folder.

    {
     "faceplate_preset": 1, "name": "Soft cartoon", "effect": "look", "effect_version": "1.0", "note": "",
     "params": {"style": "cartoon", "degree": {"keys": [[1001, 0.0], [1024, 1.0]]}},
     "edits": [["smile", 0.6]]
    }

A file is checked when it is read; values are checked against the effect when they are applied, and what does not fit is
reported and left out, never dropped silently. Folders are the user's own and any that are shared ($FACEPLATE_PRESETS,
several joined as in $PATH).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host_bridge.curves import Curve
from host_bridge.effects import EffectDescriptor, check_curve
from host_bridge.endpoint import config_dir
from host_bridge.errors import FaceplateError, PanelError
from host_bridge.files import write_whole

VERSION = 1
SUFFIX = ".faceplate.json"
_FIELDS = {
    "faceplate_preset": (int, "a whole number"),
    "name": (str, "text"),
    "effect": (str, "text"),
    "effect_version": (str, "text"),
    "note": (str, "text"),
    "params": (dict, "an object of values"),
    "edits": (list, "a list of [direction, strength]"),
}
_LARGEST = 4 << 20


@dataclass(frozen=True)
class Preset:
    """Values of one effect in the form jobs have them."""

    name: str
    effect: str
    effect_version: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[tuple[str, Any], ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "faceplate_preset": VERSION,
            "name": self.name,
            "effect": self.effect,
            "effect_version": self.effect_version,
            "note": self.note,
            "params": dict(self.params),
            "edits": [[name, value] for name, value in self.edits],
        }


@dataclass(frozen=True)
class PresetFile:
    """A preset file that was found; `preset` None and `error` set where it cannot be used."""

    path: Path
    shared: bool
    preset: Preset | None
    error: FaceplateError | None = None

    @property
    def name(self) -> str:
        return self.preset.name if self.preset is not None else self.path.name.removesuffix(SUFFIX)


@dataclass(frozen=True)
class Fitted:
    """What of a preset an effect takes: curves by parameter, edits in order, and why the rest was left out. With each
    curve, whether it was written as keyframes."""

    params: Mapping[str, tuple[Curve, bool]]
    edits: tuple[tuple[str, Curve, bool], ...]
    problems: tuple[FaceplateError, ...] = ()


def user_folder() -> Path:
    """The user's own presets."""
    return config_dir() / "presets"


def shared_folders() -> tuple[Path, ...]:
    """Folders named by $FACEPLATE_PRESETS."""
    return tuple(Path(p) for p in os.environ.get("FACEPLATE_PRESETS", "").split(os.pathsep) if p)


def load_preset(path: Path) -> Preset:
    """Read and check a preset file. PanelError (`panel.preset`) that says what is wrong with it, and where."""
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}", "Check the file and its permissions.") from error
    if len(raw) > _LARGEST:
        raise _wrong(path, "is larger than 4 MB", "A preset is a small JSON file; this is something else.")
    try:
        data = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _wrong(path, "is not UTF-8 text", "A preset is a JSON file; this is something else.") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise _wrong(path, f"is not valid JSON: {error.msg} at {where}", "Correct it there.") from error
    return _checked(path, data)


def save_preset(path: Path, preset: Preset, *, replace: bool = False) -> None:
    """Write a preset file, whole or not at all. PanelError (`panel.preset`), also where there is one already."""
    if path.exists() and not replace:
        raise _wrong(path, "is there already", "Choose another name, or replace it.")
    text = json.dumps(preset.to_json(), indent=1, ensure_ascii=False) + "\n"
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise _wrong(path, f"cannot be written: {error.strerror}", "Choose a folder that can be written.") from error


def list_presets(own: Path, shared: Sequence[Path] = ()) -> tuple[PresetFile, ...]:
    """Every preset file of the folders, by name; folders that are not there hold none. Files that cannot be used are
    listed with what is wrong."""
    out = []
    for folder, is_shared in ((own, False), *((folder, True) for folder in shared)):
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                out.append(PresetFile(path, is_shared, load_preset(path)))
            except FaceplateError as error:
                out.append(PresetFile(path, is_shared, None, error))
    return tuple(sorted(out, key=lambda found: (found.name.lower(), found.shared)))


def file_name(name: str) -> str:
    """The file name for a preset's name. PanelError (`panel.preset`) for a name without a letter or digit."""
    stem = re.sub(r"[^\w-]+", "_", name, flags=re.UNICODE).strip("_")
    if not stem:
        raise PanelError(
            "panel.preset", "a preset needs a name", value=name, remedy="Give it one of letters or digits."
        )
    return stem[:80] + SUFFIX


def fit_preset(preset: Preset, descriptor: EffectDescriptor) -> Fitted:
    """What `descriptor` takes of the preset, and what it does not, each with the reason and the nearest name."""
    params: dict[str, tuple[Curve, bool]] = {}
    edits: list[tuple[str, Curve, bool]] = []
    problems: list[FaceplateError] = []
    settable = {p.name for p in descriptor.settable}
    for name, value in preset.params.items():
        try:
            param = descriptor.param(name)
            if name not in settable:
                raise PanelError("panel.preset", f"{name} is a {param.type} and holds no value", remedy="Leave it out.")
            params[name] = check_curve(param, Curve.from_json(value)), isinstance(value, dict)
        except FaceplateError as error:
            problems.append(error)
    for name, value in preset.edits:
        try:
            curve = check_curve(descriptor.edit(name), Curve.from_json(value))
            edits.append((name, curve, isinstance(value, dict)))
        except FaceplateError as error:
            problems.append(error)
    return Fitted(params, tuple(edits), tuple(problems))


def _checked(path: Path, data: Any) -> Preset:
    if not isinstance(data, dict) or "faceplate_preset" not in data:
        raise _wrong(path, 'lacks "faceplate_preset"', "A preset of the panel begins with it; this is something else.")
    for name, value in data.items():
        if name not in _FIELDS:
            allowed = ", ".join(_FIELDS)
            raise _wrong(path, f'has the unknown field "{name}"', f"Remove or correct it; there are {allowed}.")
        kind, wanted = _FIELDS[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _wrong(path, f'"{name}" is {json.dumps(value)[:60]}', f"It must be {wanted}.")
    if data["faceplate_preset"] != VERSION:
        raise _wrong(
            path,
            f"is of version {data['faceplate_preset']}, this Faceplate reads {VERSION}",
            "Update Faceplate, or save the preset again with this one.",
        )
    if not data.get("effect"):
        raise _wrong(path, 'does not name its "effect"', 'Add it, as in "effect": "look".')
    for name, value in data.get("params", {}).items():
        _check_value(path, f"params.{name}", value)
    edits = []
    for index, entry in enumerate(data.get("edits", [])):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise _wrong(path, f"edits[{index}] is {json.dumps(entry)[:60]}", "Write [direction, strength].")
        _check_value(path, f"edits[{index}]", entry[1])
        edits.append((entry[0], entry[1]))
    return Preset(
        str(data.get("name") or path.name.removesuffix(SUFFIX)),
        str(data["effect"]),
        str(data.get("effect_version", "")),
        data.get("params", {}),
        tuple(edits),
        str(data.get("note", "")),
    )


def _check_value(path: Path, where: str, value: Any) -> None:
    try:
        Curve.from_json(value)
    except FaceplateError as error:
        raise _wrong(path, f"{where}: {error.message}", error.remedy) from error


def _wrong(path: Path, what: str, remedy: str) -> PanelError:
    return PanelError("panel.preset", f"the preset {path.name} {what}", path=str(path), remedy=remedy)
