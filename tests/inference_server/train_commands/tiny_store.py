"""A model store with everything that training a tiny VToonify needs, under the ids of the official models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from inference_server.models.cards import Card, Licence, Part
from inference_server.models.store import Folder, ModelStore
from inference_server.training.tables import dump_toml
from tests.inference_server.training.recipes import tiny_vtoonify as tiny

TEACHER_LICENCE = Licence("teachers", "Teachers' terms", True, "Not commercially.")


def put(
    store: ModelStore, model_id: str, parts: Mapping[str, tuple[str, nn.Module, dict[str, Any]]], **loose: Any
) -> None:
    """A stored model: parts as (network, module, configuration), single tensors by name, `code_names` of styles."""
    names = loose.pop("code_names", ())
    card = Card(
        id=model_id,
        title=model_id,
        purpose="tests",
        authors=("nobody",),
        licences=(TEACHER_LICENCE,),
        file=f"{model_id}.safetensors",
        container="safetensors",
        parts={name: Part(network, config) for name, (network, _, config) in parts.items()},
        not_imported="" if parts else "made in a test",
    )
    tensors = {f"tensors/{name}": value for name, value in loose.items()}
    for name, (_, module, _) in parts.items():
        tensors |= {f"{name}/{key}": value.clone().contiguous() for key, value in module.state_dict().items()}
    stored = {"source_file": card.file, "source_sha256": "0" * 64, "code_names": tuple(names)}
    store.add(card, lambda path: save_file(tensors, path), stored, replace=True)


def fill(folder: Path) -> ModelStore:
    """The store with both backbones' teachers."""
    store = ModelStore((Folder(folder, True),))
    d, t = tiny.teachers("dualstylegan"), tiny.teachers("toonify")
    size = {"size": tiny.OUT, **tiny.SIZES}
    put(store, "dualstylegan-cartoon", {"main": ("dualstylegan", d.style, size)})
    put(store, "stylegan2-ffhq", {"main": ("stylegan2", t.base, size)})
    put(store, "stylegan2-finetuned-cartoon", {"main": ("stylegan2", t.style, size)})
    put(store, "bisenet-faceparsing", {"main": ("bisenet", d.parser, {"width": 4})})
    assert d.colours is not None
    assert d.perceptual is not None
    put(store, "vtoonify-encoder", {"main": ("psp", d.colours, tiny.PSP)}, latent_avg=d.colour_average)
    put(store, "dualstylegan-codes-cartoon", {}, codes=d.exemplars, code_names=d.names)
    put(store, "vtoonify-directions", {}, directions=d.directions)
    lpips = {"trunk": "vgg", "width_divisor": 16}
    state = d.perceptual.state_dict()
    heads = {key: value for key, value in state.items() if key.startswith("lin") and not key.startswith("lins")}
    trunk = {f"features.{key.split('.', 2)[2]}": value for key, value in state.items() if key.startswith("net.")}
    put(store, "lpips-vgg", {"main": ("lpips-heads", _Held(heads), lpips)})
    put(store, "torchvision-vgg16", {"main": ("lpips-trunk", _Held(trunk), lpips)})
    return store


class _Held(nn.Module):
    """A state dict as a module."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.state = dict(state)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.state


def write_config(path: Path, recipe: Mapping[str, Any], models: Mapping[str, str], **loop: Any) -> Path:
    """A configuration of a few steps."""
    table = {
        "steps": 6,
        "batch": 2,
        "micro_batch": 1,
        "workers": 0,
        "validate_every": 0,
        "pictures_every": 0,
        "ema": {"half_life": 10.0},
        "checkpoints": {"every": 2},
        **loop,
        "recipe": {**recipe, "models": dict(models)},
    }
    path.write_text(dump_toml(table))
    return path


D_MODELS = {
    "style": "dualstylegan-cartoon",
    "codes": "dualstylegan-codes-cartoon",
    "colours": "vtoonify-encoder",
    "parser": "bisenet-faceparsing",
    "directions": "vtoonify-directions",
}
T_MODELS = {
    "base": "stylegan2-ffhq",
    "style": "stylegan2-finetuned-cartoon",
    "parser": "bisenet-faceparsing",
    "directions": "vtoonify-directions",
}
