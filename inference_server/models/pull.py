"""Decides how a file its authors publish on Hugging Face is fetched: resumable, checked, and not twice.

The file is written to `.downloads/` in the user's own model folder. A download that was cut off, or whose process
was killed, goes on where it stopped as long as the server still has the same version (its ETag names the partial
file). What arrives is compared with the size and, where the server or the card knows it, the SHA-256.
"""

from __future__ import annotations

import re
from pathlib import Path

from host_bridge.errors import ModelError
from inference_server.models.cards import Card
from inference_server.models.store import Folder, sha256_of

DOWNLOADS = ".downloads"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIMEOUT_SECONDS = 15.0


def by_hand(card: Card) -> str:
    """What to fetch where, and how to import it, for a file that cannot be pulled."""
    lines = [f"{card.title}: fetch {card.file} from its authors"]
    for source in card.sources:
        lines.append(f"  {source.url or 'the authors'}" + (f"  ({source.note})" if source.note else ""))
    if card.sha256:
        lines.append(f"  sha256 {card.sha256}")
    if card.template:
        lines.append(f"then: faceplate models import FILE --template {card.id} --id NAME")
    else:
        lines.append(f"then: faceplate models import {card.file} --id {card.id}")
    return "\n".join(lines)


def _failed(card: Card, url: str, why: str) -> ModelError:
    return ModelError(
        "model.download",
        f"{card.file} could not be fetched: {why}",
        value=card.id,
        path=url,
        remedy=f"Run the same command again to go on where it stopped, or fetch the file with a browser and say "
        f"`faceplate models import FILE --id {card.id}`.",
    )


def fetch(card: Card, folder: Folder, *, endpoint: str | None = None) -> Path:
    """Download the card's file into the folder's `.downloads` and return its path.

    `endpoint` replaces the hub's address (default: HF_ENDPOINT or the public one); HF_HUB_OFFLINE is honoured.
    The hub's library shows a progress bar on a terminal. A file that is there already, whole and of the right hash,
    is returned without asking the server. Raises ModelError `model.manual` when the authors publish elsewhere,
    `model.download`, `model.hash`, `model.folder`.
    """
    hub = card.hub
    if hub is None:
        raise ModelError(
            "model.manual",
            f"{card.id!r} has to be fetched by hand",
            value=card.id,
            remedy=by_hand(card),
        )
    place = folder.path / DOWNLOADS / card.id
    whole = place / card.file
    if card.sha256 is not None and whole.is_file() and sha256_of(whole) == card.sha256:
        return whole
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    url = hf_hub_url(hub.repo, hub.path, revision=hub.revision, endpoint=endpoint)
    try:
        meta = get_hf_file_metadata(url, token=False, timeout=_TIMEOUT_SECONDS)
        if not meta.etag or meta.size is None:
            raise _failed(card, url, "the server does not say which version and how large it is")
        if card.bytes is not None and meta.size != card.bytes:
            raise _failed(card, url, f"the server's file has {meta.size} bytes, expected {card.bytes}")
        place.mkdir(parents=True, exist_ok=True)
        partial = place / f"{re.sub(r'[^0-9A-Za-z]', '', meta.etag)[:40]}.partial"
        _download(meta.location, partial, meta.size)
    except ModelError:
        raise
    except OfflineModeIsEnabled as error:
        raise _failed(card, url, "HF_HUB_OFFLINE is set") from error
    except HfHubHTTPError as error:
        raise _failed(card, url, f"the server answered {error.response.status_code}") from error
    except OSError as error:
        raise _failed(card, url, str(error) or type(error).__name__) from error
    except Exception as error:  # the HTTP library's own errors differ between the hub's versions
        raise _failed(card, url, f"{type(error).__name__}: {error}") from error
    wanted = card.sha256 or (meta.etag if _SHA256.fullmatch(meta.etag) else None)
    if wanted is not None and (got := sha256_of(partial)) != wanted:
        partial.unlink()
        raise ModelError(
            "model.hash",
            f"expected sha256 {wanted}, got {got}; the download was thrown away",
            value=got,
            path=url,
            remedy="Run the command again. If it repeats, the authors have replaced the file: import it with --card.",
        )
    partial.replace(whole)
    return whole


def _download(url: str, partial: Path, size: int) -> None:
    from huggingface_hub.file_download import http_get

    partial.touch()
    with partial.open("r+b") as stream:
        start = stream.seek(0, 2)
        if start > size:  # not what the server has; begin again
            start = stream.seek(0)
            stream.truncate()
        if start < size:
            http_get(url, stream, resume_size=start, headers={}, expected_size=size)
    if partial.stat().st_size != size:
        raise OSError(f"{partial.stat().st_size} of {size} bytes arrived")


def discard(path: Path) -> None:
    """Delete a download that has been imported, and its folder."""
    for leftover in path.parent.iterdir():
        leftover.unlink()
    path.parent.rmdir()
