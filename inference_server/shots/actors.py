"""Results of long steps that outlive their shot, kept by the actor's name: where the next shot of the actor begins.

    actors/<actor>/<effect>.<step>/<digest>/   a copy (links, where the disk has them) of the result
    actors/<actor>/<effect>.<step>/latest      the digest of the newest

Plain files below the shot store, not counted by its quota: evicting a shot takes nothing from them.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from pathlib import Path

from host_bridge.errors import EffectError, ShotError
from inference_server.effects.steps import RUN
from inference_server.shots.effectdata import unwritable
from inference_server.shots.packing import write_text
from inference_server.shots.steps import TakenStep, steps_of_kind, track_of
from inference_server.shots.store import ShotStore

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_. -]{0,63}\Z")
_KEPT = 2  # the newest, and the one before it, which somebody may just be reading


def check_actor(name: str) -> str:
    """The name, if it can be a folder's. EffectError `effect.parameter` otherwise."""
    if not _NAME.match(name):
        raise EffectError(
            "effect.parameter",
            f"{name!r:.80} cannot be an actor's name",
            value=name[:80],
            remedy="Write up to 64 letters, digits, spaces, _ - and .",
        )
    return name


def keep_for(store: ShotStore, actor: str, kind: str, step: TakenStep) -> None:
    """Keep a published result as the actor's newest of that kind, unless there is a newer one."""
    parent = store.root / "actors" / check_actor(actor) / kind
    final = parent / step.digest
    draft = parent / f".draft-{uuid.uuid4().hex}"
    newest = parent / "latest"
    if final.is_dir() or (newest.is_file() and newest.stat().st_mtime > step.folder.stat().st_mtime):
        return
    try:
        parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(step.folder, draft, copy_function=_link, ignore=shutil.ignore_patterns(RUN))
        os.rename(draft, final)
        os.utime(final)
        write_text(newest, step.digest)
    except OSError as error:
        raise unwritable(final, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    older = sorted((p for p in parent.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)[:-_KEPT]
    for folder in older:
        shutil.rmtree(folder, ignore_errors=True)


def earlier_result(store: ShotStore, source: str, kind: str) -> Path:
    """The folder of the result named by an actor, by a shot's id, or by `id/face` where the shot has several.

    ShotError `shot.not_adapted` where there is none, or more than one face could be meant.
    """
    if _NAME.match(source):
        parent = store.root / "actors" / source / kind
        if (parent / "latest").is_file():
            return parent / (parent / "latest").read_text(encoding="ascii").strip()
    shot, _, face = source.partition("/")
    records = [record for record in store.records() if shot and record.id.startswith(shot)]
    found = [
        step
        for record in records
        for step in steps_of_kind(store, record, kind)
        if not face or str(track_of(step)) == face
    ]
    faces = sorted({(step.folder.parts[-3], track_of(step)) for step in found})
    if len(faces) == 1:
        return found[0].folder
    actors = sorted(path.parts[-3] for path in (store.root / "actors").glob(f"*/{kind}/latest"))
    what = kind.rpartition(".")[2]
    if faces:
        raise ShotError(
            "shot.not_adapted",
            f"{source} could mean any of {', '.join(f'{shot}/{track}' for shot, track in faces)}",
            value=source,
            remedy="Write the shot's id and, after a slash, the face's.",
        )
    raise ShotError(
        "shot.not_adapted",
        f"there is no {what} to start from under the name {source!r:.80}",
        value=source[:80],
        remedy="Give an actor's name or the id of a shot for which the step was taken. "
        f"Actors: {', '.join(actors) or 'none'}.",
    )


def _link(source: str, target: str) -> None:
    """A published file never changes, so that a link is as good as a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
