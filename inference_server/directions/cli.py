"""Semantic directions: what an actor's face can be moved along (younger, smiling, ...); list, import and make them."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from host_bridge.errors import ExitCode, ModelError, RequestError
from inference_server.directions.catalog import TENSOR, Offered, edit_name, load_linear, offered, problems
from inference_server.models.cards import Card, DirectionSpec, Licence, official_cards
from inference_server.models.store import ModelStore, StoredModel

_EPILOG = """\
A direction is a model like any other: `faceplate models list|show|verify|remove direction-NAME` work on it, too.
Exit status: 0 done, 2 wrong arguments, 3 a file is missing or cannot be used, 7 a licence was not accepted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands, on a parser of the caller's."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="directions_command", required=True, metavar="COMMAND")

    lister = commands.add_parser("list", help="the directions that can be used now, for `render --edit NAME=STRENGTH`")
    lister.add_argument("text", nargs="?", default="", help="only those whose name or label has this text")
    lister.add_argument("--json", action="store_true", help="one JSON array, for programs")

    importer = commands.add_parser(
        "import",
        help="a published file, or an array of your own (.npy, .npz, .pt)",
        description="Without --name the file must be a published one (`faceplate models list direction`), and is "
        "imported under its own name. With --name it is an array of your own: [D], [1, D], [L, D] or [1, L, D].",
    )
    importer.add_argument("file", type=Path)
    importer.add_argument("--key", default="", help="which array of a file that holds several")
    importer.add_argument("--component", type=int, metavar="K", help="component K of a GANSpace file")
    importer.add_argument("--scale", type=float, default=1.0, help="what strengths are multiplied with (default 1)")
    importer.add_argument("--licence", default="", help="an id of `licences.toml` (mit, cc-by-nc, ...) or its name")
    importer.add_argument("--noncommercial", action="store_true", help="that licence forbids commercial use")
    importer.add_argument("--accept-licence", action="store_true", help="accept a non-commercial licence unasked")
    _add_storing(importer, required=False)

    fitter = commands.add_parser(
        "fit",
        help="a direction from codes of faces with an attribute and without",
        description="Parts two sets of latent codes, [N, L, D] or [N, D] in .npy or .npz (array `codes`), by a linear "
        "support vector machine; 30 % of each are kept out, and the accuracy on them is told (50 % is chance). A "
        "strength of 1 is one unit of the code's space; how far apart the two kinds are is told, and is what the "
        "slider spans.",
    )
    fitter.add_argument("--positive", type=Path, nargs="+", required=True, metavar="FILE", help="codes with it")
    fitter.add_argument("--negative", type=Path, nargs="+", required=True, metavar="FILE", help="codes without it")
    fitter.add_argument(
        "--condition",
        action="append",
        default=[],
        metavar="NAME",
        help="a direction that must not change along with it; may be said several times",
    )
    fitter.add_argument("--key", default="", help="the array's name in files that hold several (default: codes)")
    fitter.add_argument("--seed", type=int, default=0, help="of the random split (default 0)")
    _add_storing(fitter, required=True)


def _add_storing(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument("--name", required=required, help="what edits call it: lower-case letters, digits, hyphens")
    parser.add_argument("--label", default="", help="what people read (default: the name)")
    parser.add_argument("--layers", metavar="A-B", help="move rows A to B of the code only, both included: 3-7")
    parser.add_argument("--range", metavar="LOW,HIGH", help="the strengths a slider spans")
    parser.add_argument("--replace", action="store_true", help="in place of a direction of that name")


def run(args: argparse.Namespace, store: ModelStore | None = None) -> int:
    """Carry out a parsed command; the exit status. Raises FaceplateError."""
    models = store or ModelStore()
    command = {"list": _list, "import": _import, "fit": _fit}[args.directions_command]
    return int(command(args, models))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _report(text: str) -> None:
    sys.stderr.write(text + "\n")


def _bad(what: str, value: str, remedy: str) -> RequestError:
    return RequestError("request.bad_value", f"{what} cannot be {value!r}", value=value, remedy=remedy)


def _layers(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)(?:-(\d+))?", text.strip())
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise _bad("--layers", text, "Say 3-7, or one row: 4.")
    return int(match[1]), int(match[2] or match[1]) + 1


def _range(text: str | None, default: tuple[float, float]) -> tuple[float, float]:
    if text is None:
        return default
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise _bad("--range", text, "Say --range=-5,5.") from error
    if not low < high:
        raise _bad("--range", text, "The first number must be the smaller one.")
    return low, high


# ------------------------------------------------------------------------------------------------------- list


def _list(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    models = store.models()
    wanted = args.text.lower()
    found = [one for one in offered(store) if wanted in f"{one.name} {one.label}".lower()]
    rows = [
        {
            "name": one.name,
            "label": one.label,
            "kind": one.kind,
            "shape": _shape(models.get(one.model)),
            "layers": list(one.layers) if one.layers else None,
            "display": list(one.display),
            "model": one.model,
            "sha256": one.sha256,
            "licence": one.licence,
            "noncommercial": one.noncommercial,
        }
        for one in found
    ]
    if args.json:
        _say(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        width = max((len(one.name) for one in found), default=0)
        for one, row in zip(found, rows, strict=True):
            terms = "non-commercial" if one.noncommercial else ""
            low, high = one.display
            shape = str(row["shape"]) if row["shape"] else ""
            _say(
                f"{one.name:<{width}}  {one.kind:<11}  {shape:<10}  rows {_rows_text(one):<5}  "
                f"{low:>5g}..{high:<5g}  {terms:<14}  {one.label}"
            )
        missing = [c for c in official_cards() if TENSOR in c.tensors and c.id not in models]
        _report(f"directions: {len(found)}; {len(missing)} more are known: faceplate models list direction")
    for problem in problems():
        _report(str(problem))
    return ExitCode.OK


def _rows_text(one: Offered) -> str:
    if one.layers is None:
        return "all"
    first, stop = one.layers
    return str(first) if stop == first + 1 else f"{first}-{stop - 1}"


def _shape(model: StoredModel | None) -> list[int] | None:
    if model is None:
        return None
    for name in (TENSOR, "mean"):
        if name in model.card.tensors:
            return list(model.card.tensors[name].shapes[0])
    return None


# ----------------------------------------------------------------------------------------------------- import


def _import(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    from inference_server.directions import own

    if args.name is None:
        return _import_published(args, store)
    layers = _layers(args.layers)
    if args.component is not None:
        rows, display = own.read_component(args.file, args.component, layers).rows, (-20.0, 20.0)
        what = f"Component {args.component} of {args.file.name}, in standard deviations."
    else:
        rows, display = own.read_rows(args.file, args.key), (-3.0, 3.0)
        what = f"From {args.file.name}; rows of length {float(np.linalg.norm(rows, axis=1).mean()):.3g}."
    terms = own.licence_named(args.licence, noncommercial=args.noncommercial)
    _report(f"{terms.name}: {terms.summary} {terms.url}".rstrip())
    spec = DirectionSpec(layers=layers, scale=args.scale, display=_range(args.range, display))
    model = own.keep(
        store, args.name, rows, terms=(terms,), spec=spec, notes=what, label=args.label, replace=args.replace
    )
    _ready(model, rows)
    return ExitCode.OK


def _import_published(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    """A file whose card comes with Faceplate: size, shape and licence are the card's."""
    from inference_server.models import cli as models

    said = [o for o, v in (("--layers", args.layers), ("--key", args.key), ("--component", args.component)) if v]
    card = _published_card(args.file) if args.file.is_file() else None
    if said or (card is not None and not _is_direction(card)):
        raise RequestError(
            "request.bad_value",
            f"{said[0]} is for arrays of your own" if said else f"{args.file.name} is {card.title if card else ''}",
            value=said[0] if said else args.file.name,
            remedy="Give the direction a name with --name." if said else "Use `faceplate models import`.",
        )
    words = ["import", str(args.file)]
    words += [option for option in ("--accept-licence", "--replace") if getattr(args, option[2:].replace("-", "_"))]
    parser = argparse.ArgumentParser(prog="faceplate models")
    models.add_arguments(parser)
    return ExitCode(models.run(parser.parse_args([*words, "--id", card.id] if card else words), store))


def _published_card(path: Path) -> Card:
    """The card that fits; of files with one name (STIT and LowRankGAN both have a mouth_open.npy) by their shape.

    Raises ModelError as `models.importer.identify`.
    """
    from inference_server.directions.own import read_arrays
    from inference_server.models.importer import identify

    try:
        return identify(path)
    except ModelError as error:
        if error.code != "model.ambiguous":
            raise
        named = [card for card in official_cards() if card.id in (error.value or []) and TENSOR in card.tensors]
        shapes = [array.shape for array in read_arrays(path).values()] if named else []
        fitting = [card for card in named if any(s in card.tensors[TENSOR].shapes for s in shapes)]
        if len(fitting) == 1:
            return fitting[0]
        raise ModelError(
            error.code,
            error.message,
            value=error.value,
            path=error.path,
            remedy="Say which published one it is: faceplate models import FILE --id ID; or give it a --name.",
        ) from error


def _is_direction(card: Card) -> bool:
    return TENSOR in card.tensors or "comp" in card.tensors


# -------------------------------------------------------------------------------------------------------- fit


def _fit(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    from inference_server.directions import own
    from inference_server.directions.fitting import fit

    layers = _layers(args.layers)
    if not args.replace:
        store.check_free(own.model_id(args.name))
    positive, negative = (_codes(files, args.key) for files in (args.positive, args.negative))
    conditions = [load_linear(store, name, size=positive.shape[-1]) for name in args.condition]
    result = fit(positive, negative, layers=layers, conditions=[c.rows for c in conditions], seed=args.seed)
    _report(f"codes: {result.counts[0]} with, {result.counts[1]} without, 30 % of each kept out")
    _report(f"accuracy on those kept out: {result.accuracy:.1%} (on the others {result.training:.1%})")
    if conditions:
        names = ", ".join(condition.name for condition in conditions)
        _report(f"accuracy along the direction without {names}: {result.along:.1%}")
    _report(f"the two kinds are {result.apart:.3g} apart along it")
    if result.along < 0.6:
        _report("that is near chance: these codes do not tell the two kinds apart along one direction")
    reach = float(f"{max(abs(result.apart), 1e-3):.2g}")
    notes = (
        f"Fitted to {result.counts[0]} codes with and {result.counts[1]} without; accuracy on the 30 % kept out "
        f"{result.along:.1%}; the two kinds are {result.apart:.3g} apart."
    )
    if conditions:
        notes += " Without " + ", ".join(condition.name for condition in conditions) + "."
    model = own.keep(
        store,
        args.name,
        result.rows,
        terms=(own.OWN, *_inherited(args.condition, store)),
        spec=DirectionSpec(layers=layers, display=_range(args.range, (-reach, reach))),
        notes=notes,
        label=args.label,
        replace=args.replace,
    )
    _ready(model, result.rows)
    return ExitCode.OK


def _codes(files: list[Path], key: str) -> NDArray[np.float64]:
    """The codes of several files one after another, [N, L, D] or [N, D]."""
    from inference_server.directions import own

    arrays = [np.asarray(own.chosen(own.read_arrays(path), key, path, "codes"), np.float64) for path in files]
    if len({array.shape[1:] for array in arrays}) != 1:
        shapes = ", ".join(f"{path.name} {list(a.shape)}" for path, a in zip(files, arrays, strict=True))
        raise RequestError(
            "request.bad_value",
            f"the files hold codes of different sizes: {shapes}",
            value=shapes,
            remedy="Give codes of one generator.",
        )
    return np.concatenate(arrays)


def _inherited(names: list[str], store: ModelStore) -> tuple[Licence, ...]:
    """The terms of the directions that went into a new one, each once."""
    wanted = {one.model for one in offered(store) if one.name in names}
    every = {terms.id: terms for model_id in wanted for terms in store.get(model_id).card.licences}
    return tuple(terms for key, terms in every.items() if key != "own")


def _ready(model: StoredModel, rows: NDArray[np.float32]) -> None:
    _say(f"{edit_name(model.id)} {list(rows.shape)} {model.sha256} {model.path}")
