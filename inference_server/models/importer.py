"""Decides how a file from its authors becomes a stored model, or an error that says what the file looks like.

Nothing is registered before everything has been checked: the licence, the size and the hash the card records, the
kind of the file, every name, shape and type. What is stored depends on the file and the card alone, so that two
machines that import the same file agree on the model's hash.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
from safetensors import SafetensorError
from safetensors.torch import save_file

from host_bridge.errors import ModelError
from inference_server.models.cards import Card, check_card, official_card, official_cards, read_cards
from inference_server.models.containers import damaged, read_container
from inference_server.models.extraction import Extracted, extract
from inference_server.models.looks import look_at
from inference_server.models.resemblance import likenesses
from inference_server.models.store import ModelStore, StoredModel, not_imported, sha256_of


@dataclass(frozen=True)
class Step:
    """Progress of an import: what is being done, and the share of the whole in 0..1."""

    what: str
    share: float


@dataclass(frozen=True)
class Imported:
    """The stored model, and the entries of the file that were not taken because the card does not speak of them."""

    model: StoredModel
    left_out: tuple[str, ...]


def card_for_import(card_file: Path | None, model_id: str | None, template: str | None = None) -> Card | None:
    """The card an import was told to use: from a file, by id, or a template's under a new id; None when untold.

    Raises ModelError `model.card`, `model.unknown`.
    """
    if card_file is not None:
        cards = read_cards(card_file)
        named = [card for card in cards if model_id in (None, card.id)]
        if len(named) != 1:
            raise ModelError(
                "model.card",
                f"the card file holds {len(cards)} models ({', '.join(card.id for card in cards[:6])})",
                path=str(card_file),
                remedy="Choose one with --id.",
            )
        return named[0]
    if template is not None:
        base = official_card(template)
        if not base.template or model_id is None:
            raise ModelError(
                "model.card",
                f"{template!r} is not a template" if not base.template else "a template needs an id of your own",
                value=template,
                remedy="Templates: " + ", ".join(c.id for c in official_cards() if c.template) + "; add --id NEW.",
            )
        if model_id in {card.id for card in official_cards()}:
            taken = f"{model_id!r} is a card's id already"
            raise ModelError("model.card", taken, remedy="Choose another --id.", value=model_id)
        named_card = msgspec.structs.replace(base, id=model_id, title=f"{base.title}: {model_id}")
        return check_card(named_card, model_id)
    return official_card(model_id) if model_id is not None else None


def identify(path: Path, sha256: str | None = None) -> Card:
    """The official card that fits a file: by its hash, by name and exact size, or by all its names and shapes.

    Raises ModelError `model.ambiguous` with the candidates, and the errors of reading the file.
    """
    digest = sha256 or sha256_of(path)
    cards = official_cards()
    for card in cards:
        if card.sha256 == digest:
            return card
    open_cards = [card for card in cards if card.sha256 is None and not card.template]
    size = path.stat().st_size
    by_name = [card for card in open_cards if card.file == path.name and card.bytes in (None, size)]
    if len(by_name) == 1:
        return by_name[0]
    look = look_at(path)
    candidates = by_name
    if look.kind in ("torch-zip", "torch-legacy"):
        alike = likenesses(read_container(path, "torch", ("argparse.Namespace",)), open_cards)
        exact = list({like.card.id: like.card for like in alike if like.share == 1.0}.values())
        both = [card for card in exact if card in by_name]
        candidates = both or exact or by_name
        if len(candidates) == 1:
            return candidates[0]
    known = [card for card in cards if card.sha256 is not None and card.file == path.name]
    why = ""
    if known:
        why = f" and is none of the {len(known)} files of that name whose hash is known"
    if candidates:
        listed = ", ".join(card.id for card in candidates[:12]) + (" ..." if len(candidates) > 12 else "")
        remedy = f"Say which it is with --id; it fits: {listed}."
    else:
        remedy = "Say which card it is with --id, or give a card of your own with --card."
    raise ModelError(
        "model.ambiguous",
        f"no single card fits the file; it looks like {look.phrase}{why}",
        value=[card.id for card in candidates],
        path=str(path),
        remedy=remedy,
    )


def importing(
    path: Path,
    store: ModelStore,
    card: Card | None = None,
    *,
    accept_licence: bool = False,
    replace: bool = False,
) -> Generator[Step, None, Imported]:
    """Import a file; yields `Step`s and returns an `Imported` (the generator's return value).

    Without `card` the file is identified. Stopping the generator early stores nothing. Raises ModelError:
    `model.licence` when a non-commercial licence is not accepted, `model.exists`, `model.folder`, `model.unsupported`,
    `model.hash`, `model.damaged`, `model.wrong_file`, `model.unsafe`, `model.too_large`, `model.mismatch`,
    `model.ambiguous`, `model.card`.
    """
    size = _size(path)
    yield Step("hashing the file", 0.0)
    digest = sha256_of(path)
    if card is None:
        yield Step("finding the card that fits", 0.15)
        card = identify(path, digest)
    if card.not_imported:
        raise not_imported(card)
    if card.noncommercial and not accept_licence:
        raise licence_needed(card)
    if not replace:
        store.check_free(card.id)
    _check_identity(path, card, size, digest)
    yield Step("reading the file", 0.2)
    contents = read_container(path, card.container, card.objects, check_sums=card.sha256 is None)
    stages = extract(path, card, contents)
    while True:
        try:
            yield Step(next(stages), 0.5)
        except StopIteration as done:
            extracted: Extracted = done.value
            break
    yield Step("storing", 0.7)
    model = store.add(
        card,
        _writer(card, digest, extracted),
        {
            "source_file": path.name,
            "source_sha256": digest,
            "kept": extracted.kept,
            "dropped": extracted.dropped,
            "code_names": extracted.code_names,
            "licence_accepted": card.noncommercial and accept_licence,
        },
        replace=replace,
    )
    yield Step("done", 1.0)
    return Imported(model, extracted.left_out)


def import_file(
    path: Path,
    store: ModelStore,
    card: Card | None = None,
    *,
    accept_licence: bool = False,
    replace: bool = False,
    progress: Callable[[Step], None] | None = None,
) -> Imported:
    """`importing` in one call."""
    steps = importing(path, store, card, accept_licence=accept_licence, replace=replace)
    while True:
        try:
            step = next(steps)
        except StopIteration as done:
            return cast(Imported, done.value)
        if progress is not None:
            progress(step)


def licence_needed(card: Card) -> ModelError:
    """The error that asks for a non-commercial licence to be accepted."""
    terms = " ".join(f"{licence.name}: {licence.summary}" for licence in card.licences if licence.noncommercial)
    return ModelError(
        "model.licence",
        f"{card.id!r} may not be used commercially. {terms}",
        value=[licence.id for licence in card.licences],
        remedy="Say --accept-licence if you accept these terms.",
    )


def _size(path: Path) -> int:
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise ModelError(
            "model.wrong_file", f"expected a model file, but {what}", path=str(path), remedy="Check the path."
        )
    size = path.stat().st_size
    if not size:
        raise damaged(path, "it is empty")
    return size


def _check_identity(path: Path, card: Card, size: int, digest: str) -> None:
    """Compare size and hash with the card's, and say what a file of another size looks like."""
    if card.template or (card.sha256 is None and card.bytes is None) or digest == card.sha256:
        return
    look = look_at(path)
    if look.kind in ("html", "lfs-pointer", "text", "compressed", "zip", "torchscript"):
        return  # reading it says so, and what it is
    if card.bytes is not None and size < card.bytes:
        raise damaged(path, f"it has {size} of {card.bytes} bytes and looks like {look.phrase}")
    if card.bytes is not None and size != card.bytes:
        raise ModelError(
            "model.hash",
            f"expected {card.bytes} bytes as {card.file} of {card.id!r} has, got {size}; it looks like {look.phrase}",
            path=str(path),
            remedy="It is another file or another version; see `faceplate models show`, or give a card with --card.",
        )
    if card.sha256 is not None:
        raise ModelError(
            "model.hash",
            f"expected sha256 {card.sha256} as {card.file} of {card.id!r} has, got {digest}",
            value=digest,
            path=str(path),
            remedy="Download it again; if it is another version, give a card of your own with --card.",
        )


def _writer(card: Card, source_sha256: str, extracted: Extracted) -> Callable[[Path], None]:
    about = {
        "id": card.id,
        "licence": card.licence,
        "noncommercial": card.noncommercial,
        "authors": list(card.authors),
        "source_sha256": source_sha256,
        "code_names": list(extracted.code_names),
    }
    # One entry only: safetensors does not order its metadata, and the file's hash must not depend on chance.
    metadata = {"faceplate": msgspec.json.encode(about, order="sorted").decode()}

    def write(draft: Path) -> None:
        try:
            save_file(extracted.tensors, draft, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    return write
