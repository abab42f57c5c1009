"""Decides what a model card is: which file it describes, who made it, under which licence, and what it feeds.

Cards are TOML. The ones that come with Faceplate lie in `cards/`: one file per family, whose `[shared]` table holds
what its `[[model]]` entries have in common. An artist's own card has the same shape, or is one bare table. Licences
are named by id from `cards/licences.toml` or given as a table. This module needs the standard library, msgspec and
tomli only, so that a process without torch can list models.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from host_bridge.errors import FaceplateError, ModelError, unknown_name
from inference_server.models.builders import NETWORKS

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

CARDS_FOLDER = Path(__file__).parent / "cards"
CARD_FORMAT = 1

Container = Literal["torch", "safetensors", "npy", "npy-dict", "nvidia-pickle"]
Conversion = Literal["", "stylegan2-ada", "stylegan3"]
Host = Literal["huggingface", "google-drive", "onedrive", "web", "repository", "own"]
Use = Literal["inference", "training", "evaluation"]

_ID = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Licence(Struct, frozen=True, forbid_unknown_fields=True):
    """Terms under which a file's authors let it be used; `summary` is what the artist reads before import."""

    id: str
    name: str
    noncommercial: bool
    summary: str
    url: str = ""


class Source(Struct, frozen=True, forbid_unknown_fields=True):
    """One place where the authors publish the file.

    `repo`, `path` and `revision` are set for Hugging Face; elsewhere `url` is a page or link for a browser and
    `note` says what to look for there.
    """

    host: Host
    url: str = ""
    repo: str = ""
    path: str = ""
    revision: str = "main"
    note: str = ""


class Part(Struct, frozen=True, forbid_unknown_fields=True):
    """The weights of one network inside the file.

    `root` is the way to the state dict, dictionary keys joined by "/"; of it the entries that start with `prefix`
    are taken, without the prefix. Entries that match `ignore` (shell patterns on the full name) may be there and
    are left out. `config` are the arguments of the network's constructor.
    """

    network: str
    config: dict[str, Any] = field(default_factory=dict)
    root: str = ""
    prefix: str = ""
    ignore: tuple[str, ...] = ()
    convert: Conversion = ""
    optional: bool = False


class TensorSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A tensor kept as it is, as float32: `path` as `Part.root`; -1 in one of `shapes` allows any length."""

    path: str = ""
    shapes: tuple[tuple[int, ...], ...]
    optional: bool = False


class StyleCodesSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """A dictionary of named codes: the shape of each, and how many there are when known."""

    shape: tuple[int, ...]
    count: int | None = None


class VToonifySpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a VToonify-D was trained for: the variants -D, -Ds, -Dd, -Dsd and -Dsdc.

    `codes` is the model that holds its collection's style codes. `style` is the number of its only style, `degree` its
    only style degree; without them it takes any. `color_transfer`: it can take the exemplar's colours, too.
    `first_style` is what a model of any style is shown with first.
    """

    codes: str = ""
    style: int | None = None
    first_style: int = 0
    degree: float | None = None
    color_transfer: bool = False


class TwoStageSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a two-stage translator (parts `translator` and, where it has one, `refiner`) was trained for.

    `styles` names its styles in the order of the translator's weights; `keyframe` says that it learned one shot's
    painted frames. `crop`, `size` and `padding` are what it saw of a plate, as effects.two_stage.crop.Framing says.
    `regions` is what of the picture was learned (as the parameter of that name; `crop` is all of it). `shot` and
    `painted` are the analysed shot's id and the numbers of the frames that were painted.
    """

    styles: tuple[str, ...] = ()
    keyframe: bool = False
    crop: Literal["follow", "fixed", "full"] = "follow"
    size: float = 64.0
    padding: tuple[float, float, float, float] = (140.0, 140.0, 150.0, 160.0)
    regions: str = "head"
    shot: str = ""
    painted: tuple[int, ...] = ()


class DirectionSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a semantic direction is meant: the rows [first, stop) of a code it moves (all when not said), what its
    authors multiply a strength with, and the strengths a slider spans.
    """

    layers: tuple[int, int] | None = None
    scale: float = 1.0
    display: tuple[float, float] = (-3.0, 3.0)


class Card(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model card. `file`, `bytes` and `sha256` describe the official file; `parts`, `tensors` and `style_codes`
    what is taken out of it; `parameters` how many values the network has; `not_imported`, when set, why Faceplate
    lists the file but takes nothing from it; `vtoonify` which variant a VToonify-D is; `two_stage` what a two-stage
    translator was trained for; `direction` how a semantic direction is applied. A `template` describes a family of
    files of which any may be imported under an id of the artist's own.
    """

    id: str
    title: str
    purpose: str
    authors: tuple[str, ...]
    licences: tuple[Licence, ...]
    file: str
    format: int = CARD_FORMAT
    family: str = ""
    paper: str = ""
    needed_for: tuple[Use, ...] = ()
    sources: tuple[Source, ...] = ()
    bytes: int | None = None
    approximate_bytes: int | None = None
    sha256: str | None = None
    container: Container = "torch"
    objects: tuple[Literal["argparse.Namespace"], ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    style_codes: StyleCodesSpec | None = None
    vtoonify: VToonifySpec | None = None
    two_stage: TwoStageSpec | None = None
    direction: DirectionSpec | None = None
    template: bool = False
    not_imported: str = ""
    notes: str = ""

    @property
    def noncommercial(self) -> bool:
        """Whether any of the licences forbids commercial use."""
        return any(licence.noncommercial for licence in self.licences)

    @property
    def licence(self) -> str:
        """The licences' names in one line, for lists and for a picture's metadata."""
        names = "; ".join(licence.name for licence in self.licences)
        return f"{names} (non-commercial)" if self.noncommercial else names

    @property
    def hub(self) -> Source | None:
        """Where `pull` can fetch the file, if its authors publish it on Hugging Face."""
        return next((s for s in self.sources if s.host == "huggingface" and s.repo and s.path), None)


def _bad_card(where: str, problem: str) -> ModelError:
    return ModelError(
        "model.card",
        f"the model card is not valid: {problem}",
        path=where,
        remedy="Correct the card; `faceplate models show ID --toml` prints one that can serve as an example.",
    )


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table; lists and values replace."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _merged(out[key], value) if both else value
    return out


def check_card(card: Card, where: str) -> Card:
    """The card itself, or ModelError `model.card` saying which field contradicts which."""
    if not _ID.fullmatch(card.id):
        raise _bad_card(
            where, f"id {card.id!r} must be lower-case letters and digits joined by single hyphens or underscores"
        )
    if card.sha256 is not None and not _SHA256.fullmatch(card.sha256):
        raise _bad_card(where, f"sha256 {card.sha256!r} must be 64 lower-case hexadecimal digits")
    if Path(card.file).name != card.file or not card.file:
        raise _bad_card(where, f"file {card.file!r} must be a plain file name")
    if not card.licences:
        raise _bad_card(where, "licences must name at least one licence")
    takes = bool(card.parts) + bool(card.tensors) + (card.style_codes is not None)
    if bool(takes) == bool(card.not_imported):
        raise _bad_card(where, "a card takes parts, tensors or style_codes from the file, or says why not_imported")
    if card.style_codes is not None and takes > 1:
        raise _bad_card(where, "style_codes stand alone")
    if (card.style_codes is not None) != (card.container == "npy-dict"):
        raise _bad_card(where, 'style_codes and container = "npy-dict" go together')
    if card.container == "npy" and card.parts:
        raise _bad_card(where, 'a container = "npy" holds one array and no network')
    for name, part in card.parts.items():
        if not _ID.fullmatch(name) or name == "tensors":
            raise _bad_card(where, f"part name {name!r} must be lower-case letters, digits, hyphens and underscores")
        if part.network not in NETWORKS:
            raise _bad_card(where, f"network {part.network!r} is none of {', '.join(sorted(NETWORKS))}")
        if part.convert and card.container != "nvidia-pickle":
            raise _bad_card(where, f'convert = "{part.convert}" is for container = "nvidia-pickle"')
    for name, spec in card.tensors.items():
        if not re.fullmatch(r"[a-z0-9_]+", name):
            raise _bad_card(where, f"tensor name {name!r} must be lower-case letters, digits and underscores")
        if not spec.shapes or any(size < -1 or size == 0 for shape in spec.shapes for size in shape):
            raise _bad_card(where, f"shapes of tensor {name!r} must be lists of positive sizes or -1")
    if card.direction is not None:
        rows, (low, high) = card.direction.layers, card.direction.display
        if rows is not None and not 0 <= rows[0] < rows[1]:
            raise _bad_card(where, f"layers {list(rows)} of a direction must be [first, stop)")
        if not card.direction.scale or not low < high:
            raise _bad_card(
                where, f"a direction's scale {card.direction.scale:g} or display {[low, high]} means nothing"
            )
    return card


@lru_cache(maxsize=1)
def licences() -> Mapping[str, Licence]:
    """The licences that come with Faceplate, by id."""
    table = read_toml(CARDS_FOLDER / "licences.toml")
    return {key: msgspec.convert({"id": key, **entry}, Licence) for key, entry in table.items()}


def _card_from_table(table: Mapping[str, Any], where: str) -> Card:
    known = licences()
    entries: list[Any] = []
    for entry in table.get("licences", ()):
        if isinstance(entry, str):
            if entry not in known:
                raise _bad_card(where, f"licence {entry!r} is none of {', '.join(sorted(known))}")
            entries.append(known[entry])
        else:
            entries.append(entry)
    plain = {**table, "licences": [msgspec.to_builtins(e) for e in entries]}
    try:
        card = msgspec.convert(plain, Card)
    except msgspec.ValidationError as error:
        raise _bad_card(where, str(error)) from error
    if card.format > CARD_FORMAT:
        raise _bad_card(where, f"format {card.format} is newer than this Faceplate reads ({CARD_FORMAT})")
    return check_card(card, where)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises OSError, and ValueError when it is not TOML."""
    table: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    return table


def read_cards(path: Path) -> list[Card]:
    """All cards of a TOML file (a family, or one bare card); ModelError `model.card` when it cannot be used."""
    try:
        document = read_toml(path)
    except OSError as error:
        raise _bad_card(str(path), f"it cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise _bad_card(str(path), f"it is not TOML ({error})") from error
    if "model" not in document:
        return [_card_from_table(document, str(path))]
    extra = set(document) - {"shared", "model"}
    if extra or not isinstance(document["model"], list) or not isinstance(document.get("shared", {}), dict):
        raise _bad_card(str(path), "a family file has one [shared] table and [[model]] entries, nothing else")
    return [_card_from_table(_merged(document.get("shared", {}), entry), str(path)) for entry in document["model"]]


@lru_cache(maxsize=1)
def _official() -> Mapping[str, Card]:
    cards: dict[str, Card] = {}
    for path in sorted(CARDS_FOLDER.glob("*.toml")):
        if path.name == "licences.toml":
            continue
        for card in read_cards(path):
            if card.id in cards:
                raise _bad_card(str(path), f"id {card.id!r} is used twice")
            cards[card.id] = msgspec.structs.replace(card, family=card.family or path.stem)
    return cards


def official_cards() -> list[Card]:
    """The cards that come with Faceplate, in the order of their families."""
    return list(_official().values())


def official_card(model_id: str) -> Card:
    """The card of that id that comes with Faceplate; ModelError `model.unknown` otherwise."""
    card = _official().get(model_id)
    if card is None:
        raise unknown_model(model_id, [])
    return card


def unknown_model(model_id: str, more: list[str]) -> FaceplateError:
    """The error for an id that neither Faceplate nor the caller's list (`more`) knows."""
    return unknown_name("model.unknown", "model", model_id, sorted({*_official(), *more}))


def card_to_table(card: Card) -> dict[str, Any]:
    """The card as plain TOML-representable values, without fields that are at their default."""

    def dense(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: dense(v) for k, v in value.items() if v is not None and v not in ("", [], {}, False)}
        if isinstance(value, list):
            return [dense(v) for v in value]
        return value

    table = msgspec.to_builtins(card, str_keys=True)
    keep_false = [{**licence} for licence in table.pop("licences")]
    configs = {name: part.pop("config", {}) for name, part in table.get("parts", {}).items()}
    # Their zeros say something: style number 0, degree 0, the plate's own size.
    variants = {name: table.pop(name) for name in ("vtoonify", "two_stage") if table.get(name) is not None}
    out: dict[str, Any] = dense(table)
    for name, variant in variants.items():
        out[name] = {key: value for key, value in variant.items() if value not in (None, "", False, []) or value == 0}
    out["licences"] = keep_false
    for name, config in configs.items():
        if config:
            out["parts"][name]["config"] = config
    return out
