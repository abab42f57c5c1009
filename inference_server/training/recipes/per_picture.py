"""Work that is done for each picture of a collection by itself: optimising codes, not weights.

Each picture's result is a file of its own, written when the picture is done; a run that was stopped does the others
only, and a picture that was replaced is done again. Every random number is a function of seed and picture name, so
results do not depend on the order, on other pictures, or on how many processes share the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from inference_server.training import pictures
from inference_server.training.config import differences
from inference_server.training.distributed import Group
from inference_server.training.draws import Draw, derive
from inference_server.training.dry_run import duration, peak_memory, reset_peak
from inference_server.training.errors import TrainingError
from inference_server.training.events import Event, Finished, Pictured, Progress, Started
from inference_server.training.files import sha256, write_atomic, write_text
from inference_server.training.recipe import Sheet
from inference_server.training.recipes.codes import CollectionCodes
from inference_server.training.recipes.folder import PictureFolder
from inference_server.training.tables import dump_toml, read_toml, to_table

CODES = "codes"  # folder of the pictures' results within a run's


@dataclass(frozen=True)
class Solved:
    """A picture's codes, Z+ [L, D] each, and a row of small pictures [columns, 3, H, W] in -1..1 that shows them."""

    intrinsic: Tensor
    extrinsic: Tensor
    strip: Tensor


class PictureWork(Protocol):
    """What is done with each picture."""

    name: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What the strip of a result shows, from left to right."""

    @property
    def settings(self) -> Any:
        """A frozen dataclass with `id`, `title`, `steps` and `seed`."""

    @property
    def pictures(self) -> PictureFolder:
        """The collection."""

    @property
    def licences(self) -> tuple[str | Mapping[str, Any], ...]:
        """Ids or tables of everything that the codes come from."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Frozen networks, to be moved to the device."""

    def solve(self, picture: Tensor, name: str, draw: Draw) -> Generator[dict[str, float], None, Solved]:
        """Works on a picture [1, 3, S, S] on the device: yields the losses of each step, returns the result."""

    def exports(self) -> tuple[tuple[str, str, str], ...]:
        """Files of codes to write: which ("intrinsic" or "extrinsic"), file name, what is added to the card's id."""


def solve_pictures(work: PictureWork, folder: Path, group: Group | None = None) -> Generator[Event, None, None]:
    """Does every picture that is not done yet, then writes the collection's code files with their cards.

    `folder` gets config.toml, codes/, sheets/ and model/. Several processes share the pictures. Closing the generator
    cancels: finished pictures are kept. TrainingError `training.resume`, `training.busy`, `training.data`.
    """
    group = group or Group()
    settings, names = work.settings, work.pictures.names
    with ExitStack() as stack:
        if group.first:
            folder.mkdir(parents=True, exist_ok=True)
            _lock(folder, stack)
            _same_run(folder, {"work": work.name, "recipe": to_table(settings)})
        group.barrier()
        for module in work.modules().values():
            module.to(group.device).eval().requires_grad_(False)
        own = list(group.mine(range(len(names))))
        todo = [i for i in own if _stored(folder, work.pictures, i) is None]
        group.barrier()  # nobody writes while another one still looks
        steps, done = settings.steps * len(own), settings.steps * (len(own) - len(todo))
        yield Started(done, steps, 0, group.size)
        clock = time.perf_counter()
        for index in todo:
            draw = Draw(settings.seed, 0, derive("picture", names[index]))
            work_on = work.solve(work.pictures.picture(index)[None].to(group.device), names[index], draw)
            while True:
                try:
                    losses = next(work_on)
                except StopIteration as end:
                    solved: Solved = end.value
                    break
                done, seconds = done + 1, time.perf_counter() - clock
                clock += seconds
                yield Progress(done, steps, losses, {}, seconds, seconds * (steps - done))
            yield _keep(folder, work, index, solved, done)
        group.barrier()
        if group.first:
            yield from _export(folder, work)
        group.barrier()


def dry_run_pictures(work: PictureWork, group: Group | None = None) -> list[str]:
    """Takes the first steps of the first picture, writes nothing; memory and time in words."""
    group = group or Group()
    settings, names = work.settings, work.pictures.names
    reset_peak(group.device)
    for module in work.modules().values():
        module.to(group.device).eval().requires_grad_(False)
    picture = work.pictures.picture(0)[None].to(group.device)
    work_on = work.solve(picture, names[0], Draw(settings.seed, 0, derive("picture", names[0])))
    next(work_on)  # to warm up
    clock, timed = time.perf_counter(), 0
    for _ in range(min(3, settings.steps - 1)):
        next(work_on)
        timed += 1
    seconds = (time.perf_counter() - clock) / max(1, timed)
    work_on.close()
    memory, whole = peak_memory(group.device), seconds * settings.steps * len(names) / group.size
    held = sum(p.numel() for module in work.modules().values() for p in module.parameters())
    told = "unknown" if memory is None else f"{memory / 2**30:.2f} GiB"
    return [
        f"work        {work.name}",
        f"pictures    {len(names)}, {settings.steps} steps each",
        f"parameters  {held:,}, none of them trained",
        f"memory      {told} ({'GPU' if group.device.type == 'cuda' else 'this process'})",
        f"time        {seconds:.3f} s a step, {duration(whole)} in all",
    ]


def read_collection(folder: Path, wanted: PictureFolder) -> CollectionCodes:
    """The codes that a run in `folder` found for these very pictures.

    TrainingError `training.data` where one is missing, or was replaced since.
    """
    found = [_stored(folder, wanted, i) for i in range(len(wanted))]
    lost = [name for name, codes in zip(wanted.names, found, strict=True) if codes is None]
    if lost:
        raise TrainingError(
            "training.data",
            f"{folder} has no codes for {len(lost)} of the {len(wanted)} pictures in {wanted.folder} "
            f"({', '.join(lost[:3])})",
            remedy="Let that run come to its end; it goes on where it stopped.",
            value=lost[:10],
        )
    intrinsic, extrinsic = (torch.stack([codes[k] for codes in found if codes]) for k in ("intrinsic", "extrinsic"))
    return CollectionCodes(tuple(wanted.names), intrinsic, extrinsic)


def write_codes(path: Path, names: Sequence[str], codes: Tensor) -> None:
    """A style-code file as DualStyleGAN publishes them: a NumPy file of a dictionary, name -> float32 [1, L, D].

    `inference_server.models` reads it without running anything in it.
    """
    table = {name: code[None].float().cpu().numpy() for name, code in zip(names, codes, strict=True)}

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, np.array(table, dtype=object), allow_pickle=True)

    write_atomic(path, write)


# --------------------------------------------------------------------------------------------------- one folder


def _lock(folder: Path, stack: ExitStack) -> None:
    try:
        stack.enter_context(FileLock(folder / ".lock", timeout=0))
    except Timeout as error:
        raise TrainingError(
            "training.busy",
            f"another process is working in {folder}",
            remedy="Wait for it, cancel it, or choose another folder.",
            value=str(folder),
        ) from error


def _same_run(folder: Path, table: dict[str, Any]) -> None:
    """Writes down what the run is; refuses to go on with another one's results."""
    path = folder / "config.toml"
    if path.exists():
        changed = differences(read_toml(path), table)
        if changed:
            raise TrainingError(
                "training.resume",
                f"{folder} holds another run: {'; '.join(changed)}",
                remedy="Continue with what the run was started with (its config.toml), or choose a new folder.",
                value=str(folder),
            )
    else:
        write_text(path, dump_toml(table))


def _path(folder: Path, name: str) -> Path:
    return folder / CODES / f"{name}.safetensors"


def _stored(folder: Path, collection: PictureFolder, index: int) -> dict[str, Tensor] | None:
    """The codes of a picture, if they were made from the picture as it is now."""
    path = _path(folder, collection.names[index])
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            if json.loads(file.metadata()["faceplate"])["picture"] != sha256(collection.path(index)):
                return None
            return {key: file.get_tensor(key) for key in ("intrinsic", "extrinsic")}
    except SafetensorError:
        return None  # damaged: it is done again


def _keep(folder: Path, work: PictureWork, index: int, solved: Solved, step: int) -> Event:
    collection = work.pictures
    name = collection.names[index]
    tensors = {key: getattr(solved, key).detach().float().cpu().contiguous() for key in ("intrinsic", "extrinsic")}
    facts = {"faceplate": json.dumps({"picture": sha256(collection.path(index)), "work": work.name})}
    sheet = folder / "sheets" / f"{name}.png"
    pictures.write_png(sheet, pictures.sheet(Sheet(solved.strip[None], work.columns)))
    path = _path(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=facts))
    return Pictured(step, "sheet", sheet)


def _export(folder: Path, work: PictureWork) -> Generator[Event, None, None]:
    """The code files and their cards, in the form `faceplate models import` takes."""
    codes = read_collection(folder, work.pictures)
    settings, out = work.settings, folder / "model"
    out.mkdir(exist_ok=True)
    for kind, file, suffix in work.exports():
        path = out / file
        values: Tensor = getattr(codes, kind)
        write_codes(path, codes.names, values)
        card = {
            "id": f"{settings.id}{suffix}",
            "title": settings.title,
            "purpose": f"The {kind} code of every picture of a style collection, in the order style numbers count.",
            "authors": ["made with Faceplate"],
            "licences": list(work.licences),
            "needed_for": ["inference", "training"],
            "file": file,
            "format": 1,
            "bytes": path.stat().st_size,
            "sha256": sha256(path),
            "container": "npy-dict",
            "notes": f"Made by {work.name}, {settings.steps} steps for each picture, seed {settings.seed}.",
            "sources": [{"host": "own"}],
            "style_codes": {"shape": [1, *values.shape[1:]], "count": len(values)},
        }
        card_path = path.with_suffix(".toml")
        write_text(card_path, dump_toml(card))
        yield Finished(settings.steps * len(codes.names), settings.steps * len(codes.names), path, card_path)
