"""Train a two-stage video translator from clips and a teacher: packing, both stages, evaluation, model, by one command.

  faceplate train two_stage --config two_stage_starter --in a.mp4 b.%04d.exr --keep-out c.mp4 --styles cartoon,pencil \\
      --id our-style --out RUNS/ours

The clips are packed into OUT/clips.safetensors first (at most 50 MiB: frames, the teacher's pictures, flow, mattes);
all training reads only that, and with --cache FILE nothing else is needed. --slice-minutes stops after so long; given
again, the command goes on where it stopped, in whatever phase, with the same result. At the end the model is measured
on the kept-out clips, which no step has seen; it goes into the store only if it beats the untouched frame and the
teacher's first picture carried along by flow, and is steadier than the teacher.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from host_bridge.errors import ExitCode
from inference_server.models.store import ModelStore
from inference_server.train_commands import running
from inference_server.training.errors import TrainingError
from inference_server.training.files import write_text
from inference_server.training.tables import dump_toml, from_table, to_table

if TYPE_CHECKING:
    from inference_server.collections.evaluation import Report
    from inference_server.networks.two_stage import Refiner, Translator
    from inference_server.training.clip_cache import ClipCache
    from inference_server.training.distributed import Group
    from inference_server.training.recipe import Recipe

CACHE, KEPT_OUT = "clips.safetensors", "kept_out.safetensors"
HALF_MOST = 65504.0
EYES = 64.0  # pixels apart in the packed crops


@dataclass(frozen=True)
class PackTable:
    """How clips are packed (see collections.clips.PackSettings); `kept_out_length` frames of each kept-out clip."""

    size: int = 288
    windows: int = 7
    length: int = 10
    grade: float = 0.35
    kept_out_length: int = 48

    def __post_init__(self) -> None:
        if self.size < 64 or self.size % 8:
            raise ValueError(f"size {self.size} must be a multiple of 8, 64 or more")
        if min(self.windows, self.length, self.kept_out_length) < 1:
            raise ValueError("windows, length and kept_out_length must be 1 or more")


@dataclass(frozen=True)
class TwoStageRun:
    """A whole run. `clips` and `kept_out` are files or patterns, or one packed file each; `translator` and `refiner`
    are documents of the training loop, `styles`, `id` and `title` filled in. `surroundings`: how much a pixel outside
    the head counts in stage one, in [translator.recipe].
    """

    id: str = "my-two-stage"
    title: str = "My video style"
    teacher: str = "look"
    styles: tuple[str, ...] = ("cartoon",)
    clips: tuple[str, ...] = ()
    kept_out: tuple[str, ...] = ()
    colorspace: str = ""
    licences: tuple[Any, ...] = ("apache-2-0",)
    data: str = ""
    pack: PackTable = field(default_factory=PackTable)
    translator: dict[str, Any] = field(default_factory=dict)
    refiner: dict[str, Any] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    running.add_run_arguments(parser, "two_stage_starter")
    parser.add_argument("--in", dest="clips", nargs="+", metavar="CLIP", help="video files or sequences to learn from")
    parser.add_argument("--keep-out", nargs="+", metavar="CLIP", help="clips to measure on, or one packed file")
    parser.add_argument("--cache", metavar="FILE", help="learn from clips that are packed already")
    parser.add_argument("--teacher", help="the effect that draws the answers")
    parser.add_argument("--styles", help="styles of the teacher, separated by commas")
    parser.add_argument("--colorspace", help="of sequences of pictures (default: scene-linear)")
    parser.add_argument("--slice-minutes", type=float, help="stop after so long; the command given again goes on")
    parser.add_argument("--id", help="what the trained model is called in the store")
    parser.add_argument("--title", help="its title in lists")


def run(args: argparse.Namespace) -> int:
    until = None if args.slice_minutes is None else time.monotonic() + 60 * args.slice_minutes
    with running.as_faceplate_errors():
        settings = from_table(TwoStageRun, _table(args))
        return _run(args, settings, until)


def _table(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration with the command's own options on top."""
    table = running.document(args)
    if args.styles is not None:
        table["styles"] = [style.strip() for style in args.styles.split(",") if style.strip()]
    if args.clips is not None:
        table["clips"] = list(args.clips)
    if args.cache is not None:
        table["clips"] = [args.cache]
    if args.keep_out is not None:
        table["kept_out"] = list(args.keep_out)
    for name in ("id", "title", "teacher", "colorspace"):
        if getattr(args, name) is not None:
            table[name] = getattr(args, name)
    return table


def _run(args: argparse.Namespace, settings: TwoStageRun, until: float | None) -> int:
    from inference_server.training.config import split_config
    from inference_server.training.distributed import group_from_environment
    from inference_server.training.dry_run import dry_run
    from inference_server.training.loop import train

    with group_from_environment(running.device_of(args.device)) as group:
        if group.first and not args.no_import and not args.replace and not args.dry_run:
            ModelStore().check_free(settings.id)
        cache, kept_out = _packed(args, settings, group)
        if group.first:
            args.out.mkdir(parents=True, exist_ok=True)
            write_text(args.out / "config.toml", dump_toml(to_table(settings)))
        for stage in ("translator", "refiner"):
            config, own = split_config(getattr(settings, stage))
            recipe = _recipe(stage, settings, own, cache, args.out)
            if args.dry_run:
                measured = dry_run(recipe, config, group)
                if group.first:
                    sys.stdout.write("\n".join([f"{stage}:", *measured.lines()]) + "\n")
                return ExitCode.OK  # the refiner needs a trained translator
            _, whole = running.follow(args, train(recipe, config, args.out / stage, group), group, until)
            if not whole:
                if group.first:
                    sys.stderr.write(f"stopped in stage {stage}. Give the command again to go on.\n")
                return ExitCode.CANCELLED
        return _finish(args, settings, kept_out) if group.first else ExitCode.OK


# ------------------------------------------------------------------------------------------------------- packing


def _packed(args: argparse.Namespace, settings: TwoStageRun, group: Group) -> tuple[ClipCache, ClipCache | None]:
    """Both caches; the first process packs what is not there or was made of something else."""
    from inference_server.training.clip_cache import ClipCache

    p = settings.pack
    paths = []
    for clips, name, windows, length in (
        (settings.clips, CACHE, p.windows, p.length),
        (settings.kept_out, KEPT_OUT, 1, p.kept_out_length),
    ):
        given = len(clips) == 1 and clips[0].endswith(".safetensors")
        path = Path(clips[0]) if given else args.out / name
        if clips and not given and group.first:
            _pack(clips, path, settings, windows, length, args.progress)
        paths.append(path if clips else None)
    group.barrier()
    if paths[0] is None:
        raise TrainingError(
            "training.config", "there is nothing to learn from", remedy="Name clips with --in, or a packed --cache."
        )
    caches = [None if path is None else ClipCache(path) for path in paths]
    for cache, path in zip(caches, paths, strict=True):
        if cache is not None and (cache.styles != settings.styles or cache.facts.get("teacher") != settings.teacher):
            raise TrainingError(
                "training.config",
                f"{path} holds {', '.join(cache.styles)} of {cache.facts.get('teacher')}, "
                f"the run is for {', '.join(settings.styles)} of {settings.teacher}",
                remedy="Say --styles and --teacher as it was packed, or pack anew.",
                value=str(path),
            )
    assert caches[0] is not None
    return caches[0], caches[1]


def _pack(clips: tuple[str, ...], path: Path, settings: TwoStageRun, windows: int, length: int, progress: str) -> None:
    from inference_server.collections.clips import PackSettings, facts_of, pack_clips
    from inference_server.training.clip_cache import ClipCache

    pack = PackSettings(settings.styles, settings.teacher, settings.pack.size, windows, length, settings.pack.grade)
    if path.is_file() and ClipCache(path).facts == facts_of(clips, pack):
        return
    last = -1
    for packed in pack_clips(clips, path, pack, colorspace=settings.colorspace):
        percent = 100 * packed.done // packed.total
        if percent >= last + 5 and progress == "lines":
            last = percent
            sys.stdout.write(f"packing {packed.clip}: {packed.done} of {packed.total} frames\n")
            sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------- recipes


def _recipe(stage: str, settings: TwoStageRun, own: Mapping[str, Any], cache: ClipCache, out: Path) -> Recipe:
    """The recipe of a stage on the cache; the last window of each clip is kept aside where a clip has several."""
    from inference_server.training.clip_cache import CachedClips, CachedPairs, middles, split_windows
    from inference_server.training.recipes.two_stage import TranslatorStart, translator_recipe
    from inference_server.training.recipes.two_stage_refiner import RefinerStart, refiner_recipe

    mine, aside = split_windows(cache)
    table = {**own, "styles": list(settings.styles), "title": settings.title, "data": cache.digest}
    notes = f"Trained on {settings.data or ', '.join(dict.fromkeys(cache.clips))}."
    if stage == "translator":
        surroundings = float(table.pop("surroundings", 0.25))
        return translator_recipe(
            {**table, "id": f"{settings.id}-translator"},
            TranslatorStart(
                CachedPairs.of(cache, mine, surroundings),
                CachedPairs(cache, middles(cache, aside), surroundings) if aside else None,
                settings.licences,
                notes=notes,
            ),
        )
    translator = _load_translator(settings, out / "translator" / "model" / f"{settings.id}-translator.safetensors")
    return refiner_recipe(
        {**table, "id": settings.id, "translator_widths": _widths(settings, "translator")},
        RefinerStart(
            translator,
            CachedClips(cache, mine),
            CachedClips(cache, aside) if aside else None,
            settings.licences,
            notes=notes,
        ),
    )


def _widths(settings: TwoStageRun, stage: str) -> list[int]:
    from inference_server.networks.two_stage import REFINER_WIDTHS, TRANSLATOR_WIDTHS

    default = TRANSLATOR_WIDTHS if stage == "translator" else REFINER_WIDTHS
    table = getattr(settings, stage).get("recipe", {})
    return [int(width) for width in table.get("widths", default)]


def _load_translator(settings: TwoStageRun, path: Path) -> Translator:
    from safetensors.torch import load_file

    from inference_server.networks.two_stage import Translator

    network = Translator(_widths(settings, "translator"), len(settings.styles))
    network.load_state_dict(_part(load_file(path), "translator"), strict=True)
    return network


def _part(tensors: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}


# ------------------------------------------------------------------------------------------------------ the result


def _finish(args: argparse.Namespace, settings: TwoStageRun, kept_out: ClipCache | None) -> int:
    """Half precision, measured as it ships; the model goes into the store only if it is accepted."""
    from inference_server.training.events import Finished
    from inference_server.training.files import sha256, write_atomic
    from inference_server.training.tables import read_toml

    trained = args.out / "refiner" / "model"
    weights, card = args.out / "model" / f"{settings.id}.safetensors", args.out / "model" / f"{settings.id}.toml"
    weights.parent.mkdir(parents=True, exist_ok=True)
    tensors = halved(trained / f"{settings.id}.safetensors")

    def save(path: Path) -> None:
        from safetensors.torch import save_file

        save_file(tensors, path, metadata={"format": "pt"})

    write_atomic(weights, save)
    table = read_toml(trained / f"{settings.id}.toml")
    notes = [table["notes"], _how(args, settings)]
    report = None
    if kept_out is None:
        notes.append("It was not measured on clips kept out.")
    else:
        translator, refiner = _networks(settings, tensors)
        report = _evaluate(kept_out, translator, refiner, args.out / "evaluation")
        notes.append("Measured on kept-out clips: " + "; ".join(_summary(report)) + ".")
    table |= {
        "bytes": weights.stat().st_size,
        "sha256": sha256(weights),
        "notes": " ".join(notes),
        "two_stage": {"styles": list(settings.styles), "crop": "follow", "size": EYES, "regions": "head"},
    }
    write_text(card, dump_toml(table))
    if report is not None:
        sys.stdout.write("\n".join(report.lines()) + "\n")
        if not report.accepted:
            sys.stderr.write(f"the model is not accepted and stays in {weights.parent}; {args.out / 'evaluation'}\n")
            return ExitCode.FRAMES_FAILED
    if not args.no_import:
        running.import_result(Finished(0, 0, weights, card), args.replace)
    return ExitCode.OK


def halved(path: Path) -> dict[str, Any]:
    """The tensors of a file, floating ones in half precision. TrainingError where one is too large for that."""
    import torch
    from safetensors.torch import load_file

    out = {}
    for name, value in load_file(path).items():
        if value.is_floating_point():
            if float(value.abs().max()) > HALF_MOST:
                raise TrainingError(
                    "training.diverged",
                    f"{name} holds {float(value.abs().max()):g}, too large for half precision",
                    remedy="Train with a lower learning rate.",
                )
            value = value.to(torch.float16)
        out[name] = value.contiguous()
    return out


def _networks(settings: TwoStageRun, tensors: Mapping[str, Any]) -> tuple[Translator, Refiner]:
    """Both networks with the weights as they ship."""
    from inference_server.networks.two_stage import Refiner, Translator

    translator = Translator(_widths(settings, "translator"), len(settings.styles))
    translator.load_state_dict(_part(tensors, "translator"), strict=True)
    refiner = Refiner(_widths(settings, "refiner"))
    refiner.load_state_dict(_part(tensors, "refiner"), strict=True)
    return translator, refiner


def _evaluate(kept_out: ClipCache, translator: Translator, refiner: Refiner, folder: Path) -> Report:
    """Measures, and leaves report.toml, a comparison and the temporal profiles in `folder`."""
    from inference_server.collections.evaluation import evaluate, save_pictures, sequences_of
    from inference_server.faces.analyse import FaceTools

    sequences = sequences_of(kept_out, translator, refiner)
    report = evaluate(sequences, FaceTools.mediapipe())
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "report.toml", dump_toml(report.table()))
    save_pictures(sequences, folder)
    return report


def _summary(report: Report) -> list[str]:
    """One clause for each clip and style."""
    return [
        f"{row.clip} {row.style}: PSNR to the teacher {row.of['refined'].psnr:.1f} dB (translator alone "
        f"{row.of['translator'].psnr:.1f}, untouched {row.of['source'].psnr:.1f}, first picture carried along "
        f"{row.of['carried'].psnr:.1f}), flicker {row.of['refined'].flicker:.0f}e-6 (translator alone "
        f"{row.of['translator'].flicker:.0f}, teacher {row.of['teacher'].flicker:.0f})"
        for row in report.rows
    ]


def _how(args: argparse.Namespace, settings: TwoStageRun) -> str:
    """Teacher, steps and hardware, in words."""
    import torch

    device = running.device_of(args.device)
    where = torch.cuda.get_device_name() if device == "cuda" else f"a CPU, {torch.get_num_threads()} threads"
    steps = f"{settings.translator.get('steps')} steps of stage one and {settings.refiner.get('steps')} of stage two"
    return f"Teacher: the effect {settings.teacher}, styles {', '.join(settings.styles)}; {steps} on {where}."
