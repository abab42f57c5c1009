"""Decides what `faceplate models ...` says and does. Errors are raised as FaceplateError for the caller to print.

torch is imported by `import` and `pull` only, so that the other commands answer at once.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from host_bridge.errors import CODES, ExitCode, ModelError
from inference_server.models.cards import Card, card_to_table, official_card, official_cards, unknown_model
from inference_server.models.pull import by_hand, discard, fetch
from inference_server.models.store import ENVIRONMENT, ModelStore, StoredModel, not_imported

_EPILOG = f"""\
Models lie in the folders of {ENVIRONMENT} (several, separated as in PATH; the first that can be written is
yours, the others are only read), or else in your own data folder.
Exit status: 0 done, 2 wrong arguments, 3 a file or model is missing, damaged or has to be fetched by hand,
7 not allowed (licence not accepted, unsafe file, folder not yours), 8 too little space."""


def add_parser(subparsers: Any) -> None:
    """Add `models` and its commands to an argparse subparsers object; `run` answers what they parse."""
    add_arguments(subparsers.add_parser("models", help="list, import and verify model files"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The commands themselves, on a parser of the caller's."""
    parser.description = "Models: what there is, under which licence, how to get it; import, verify and remove."
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="models_command", required=True, metavar="COMMAND")

    lister = commands.add_parser("list", help="known models and which of them are imported")
    lister.add_argument("text", nargs="?", default="", help="only models whose id or title has this text")
    lister.add_argument("--imported", action="store_true", help="only imported ones")
    lister.add_argument("--json", action="store_true", help="one JSON array, for programs")

    show = commands.add_parser("show", help="a model's card: authors, licence, where to get it")
    show.add_argument("id")
    show.add_argument("--toml", action="store_true", help="the card itself, as a start for one of your own")

    pull = commands.add_parser("pull", help="fetch a model from Hugging Face and import it")
    pull.add_argument("id")
    pull.add_argument("--endpoint", help="another address of the hub (default: HF_ENDPOINT or the public one)")
    pull.add_argument("--keep", action="store_true", help="keep the downloaded file after the import")
    _add_import_options(pull)

    importer = commands.add_parser("import", help="import a file you have")
    importer.add_argument("file", type=Path)
    importer.add_argument("--id", help="the card's id (default: found out from the file)")
    importer.add_argument("--card", type=Path, help="a card of your own (TOML)")
    importer.add_argument("--template", metavar="ID", help="a template card; --id is then the new model's")
    _add_import_options(importer)

    verify = commands.add_parser("verify", help="hash imported models again")
    verify.add_argument("ids", nargs="*", metavar="ID", help="which (default: all)")

    remove = commands.add_parser("remove", help="delete a model from your own folder")
    remove.add_argument("id")


def _add_import_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--accept-licence", action="store_true", help="accept a non-commercial licence without being asked"
    )
    parser.add_argument("--replace", action="store_true", help="import again over a model of that id")


def run(args: argparse.Namespace, store: ModelStore | None = None) -> int:
    """Carry out a parsed command; the exit status. Raises FaceplateError."""
    models = store or ModelStore()
    command = {
        "list": _list,
        "show": _show,
        "pull": _pull,
        "import": _import,
        "verify": _verify,
        "remove": _remove,
    }[args.models_command]
    return int(command(args, models))


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def _report(text: str) -> None:
    sys.stderr.write(text + "\n")


def _state(card: Card, stored: StoredModel | None) -> str:
    if stored is not None:
        return "built in" if stored.built_in else "imported" if stored.folder.writable else "studio"
    if card.not_imported:
        return "listed"
    if card.template:
        return "template"
    return "pull" if card.hub else "by hand"


def _list(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    imported = store.models()
    cards = {card.id: card for card in official_cards()} | {m.id: m.card for m in imported.values()}
    wanted = args.text.lower()
    rows = []
    for card in cards.values():
        stored = imported.get(card.id)
        if (args.imported and stored is None) or wanted not in f"{card.id} {card.title}".lower():
            continue
        rows.append(
            {
                "id": card.id,
                "state": _state(card, stored),
                "noncommercial": card.noncommercial,
                "licence": card.licence,
                "title": card.title,
                "path": str(stored.path) if stored else None,
                "sha256": stored.sha256 if stored else None,
            }
        )
    if args.json:
        _say(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
    else:
        width = max((len(str(row["id"])) for row in rows), default=0)
        for row in rows:
            terms = "non-commercial" if row["noncommercial"] else ""
            _say(f"{row['id']:<{width}}  {row['state']:<8}  {terms:<14}  {row['title']}")
        folders = ", ".join(f"{f.path}{'' if f.writable else ' (read only)'}" for f in store.folders)
        _report(f"{len(rows)} models, {sum(row['path'] is not None for row in rows)} imported; folders: {folders}")
    for model in store.shadowed():
        _report(f"{model.id} in {model.folder.path} is hidden by a folder that comes first")
    for problem in store.problems():
        _report(str(problem))
    return ExitCode.OK


def _size_text(size: int) -> str:
    return f"{size:,} bytes" if size < 10_000_000 else f"{size / 1e6:,.0f} MB ({size:,} bytes)"


def _find(model_id: str, store: ModelStore) -> tuple[Card, StoredModel | None]:
    imported = store.models()
    if model_id in imported:
        return imported[model_id].card, imported[model_id]
    cards = {card.id: card for card in official_cards()}
    if model_id not in cards:
        raise unknown_model(model_id, list(imported))
    return cards[model_id], None


def _show(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    card, stored = _find(args.id, store)
    if args.toml:
        _say(tomli_w.dumps(card_to_table(card)).rstrip())
        return ExitCode.OK
    rows = [("model", f"{card.id}: {card.title}"), ("purpose", card.purpose), ("authors", ", ".join(card.authors))]
    if card.paper:
        rows.append(("paper", card.paper))
    rows += [("licence", f"{terms.name}. {terms.summary} {terms.url}".rstrip()) for terms in card.licences]
    rows += [("published", s.url + (f" ({s.note})" if s.note else "")) for s in card.sources]
    size = card.bytes or card.approximate_bytes
    about = "" if card.bytes else "about "
    rows.append(("file", card.file + (f", {about}{_size_text(size)}" if size else "")))
    rows.append(("sha256", card.sha256 or "not recorded"))
    rows += [("feeds", f"{part.network} ({name}) {part.config or ''}".rstrip()) for name, part in card.parts.items()]
    if card.tensors:
        rows.append(("holds", ", ".join(card.tensors)))
    if card.style_codes is not None:
        rows.append(("holds", f"{card.style_codes.count or 'any number of'} style codes"))
    if card.needed_for:
        rows.append(("needed for", ", ".join(card.needed_for)))
    if card.notes:
        rows.append(("note", card.notes))
    if stored is not None:
        kept = f", {stored.stored.kept:,} values" if stored.stored.kept else ""
        dropped = f" ({stored.stored.dropped:,} that nothing reads were dropped)" if stored.stored.dropped else ""
        rows.append(("imported", f"{stored.path}{kept}{dropped}"))
        rows.append(("its sha256", stored.sha256))
    else:
        rows.append(("imported", f"no. {not_imported(card).remedy}"))
    wrapper = textwrap.TextWrapper(110, subsequent_indent=" " * 11, break_long_words=False)
    for name, value in rows:
        _say(wrapper.fill(f"{name:<10} {value}"))
    return ExitCode.OK


def _accepted(card: Card, accept: bool) -> bool:
    """Show the licence, and ask on a terminal unless it was accepted on the command line."""
    for terms in card.licences:
        _report(f"{terms.name}: {terms.summary}" + (f" {terms.url}" if terms.url else ""))
    if not card.noncommercial or accept:
        return True
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{card.id} may not be used commercially. Accept? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _import_with(path: Path, card: Card | None, args: argparse.Namespace, store: ModelStore) -> ExitCode:
    from inference_server.models.importer import identify, import_file, licence_needed

    if card is None:
        card = identify(path) if path.is_file() else None
    if card is not None and not card.not_imported and not _accepted(card, args.accept_licence):
        raise licence_needed(card)
    imported = import_file(
        path,
        store,
        card,
        accept_licence=True,
        replace=args.replace,
        progress=lambda step: _report(f"{step.share:4.0%} {step.what}"),
    )
    model = imported.model
    if imported.left_out:
        _report(f"left out: {', '.join(imported.left_out)}")
    if model.stored.dropped:
        total = model.stored.kept + model.stored.dropped
        _report(f"kept {model.stored.kept:,} of {total:,} values; nothing reads the others")
    _say(f"{model.id} {model.sha256} {model.path}")
    return ExitCode.OK


def _import(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    from inference_server.models.importer import card_for_import

    return _import_with(args.file, card_for_import(args.card, args.id, args.template), args, store)


def _pull(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    card = official_card(args.id)
    if card.not_imported:
        raise not_imported(card)
    if card.hub is None:
        _say(by_hand(card))
        return CODES["model.manual"].exit_code
    if not args.replace:
        store.check_free(card.id)
    if not _accepted(card, args.accept_licence):
        from inference_server.models.importer import licence_needed

        raise licence_needed(card)
    args.accept_licence = True
    path = fetch(card, store.own, endpoint=args.endpoint)
    status = _import_with(path, card, args, store)
    if args.keep:
        _report(f"kept {path}")
    else:
        discard(path)
    return status


def _verify(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    ids = args.ids or sorted(store.models())
    failed = [] if args.ids else store.problems()
    for model_id in ids:
        try:
            model = store.verify(model_id)
        except ModelError as error:
            if error.code != "model.stored":
                raise
            failed.append(error)
        else:
            _say(f"{model.id}  ok  {model.path}")
    for text in dict.fromkeys(map(str, failed)):
        _report(text)
    return CODES["model.stored"].exit_code if failed else ExitCode.OK


def _remove(args: argparse.Namespace, store: ModelStore) -> ExitCode:
    _say(f"removed {store.remove(args.id)}")
    return ExitCode.OK
