"""Decides how a stored model becomes a network in memory: built from its card, loaded strictly, in evaluation mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from host_bridge.errors import ModelError
from inference_server.models.builders import NETWORKS, build
from inference_server.models.extraction import TENSORS
from inference_server.models.store import ModelStore, StoredModel

if TYPE_CHECKING:
    from inference_server.networks.lpips import LPIPS

LPIPS_HEADS = {"vgg": "lpips-vgg", "alex": "lpips-alex"}
LPIPS_TRUNKS = {"vgg": "torchvision-vgg16", "alex": "torchvision-alexnet"}


@dataclass(frozen=True)
class StyleCodes:
    """Exemplar codes in the order that style numbers count. codes: [styles, rows, width] float32, in Z+."""

    names: tuple[str, ...]
    codes: Tensor

    def index(self, name: str) -> int:
        """The number of a style by its name, with or without the picture's suffix; KeyError when there is none."""
        for number, own in enumerate(self.names):
            if name in (own, own.rpartition(".")[0]):
                return number
        raise KeyError(name)


def _tensors(model: StoredModel, part: str, device: torch.device | str) -> dict[str, Tensor]:
    """The model's tensors of one part, without the part's name."""
    prefix = f"{part}/"
    try:
        with safe_open(model.path, "pt", device=str(device)) as stored:
            names = [name for name in stored.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dict
            return {name.removeprefix(prefix): stored.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ModelError(
            "model.stored",
            f"the weights of {model.id!r} cannot be read: {error}",
            path=str(model.path),
            remedy="`faceplate models verify` tells more; import the model again with --replace.",
        ) from error


def _missing(model: StoredModel, what: str) -> ModelError:
    return ModelError(
        "model.stored",
        f"{model.id!r} holds no {what}",
        path=str(model.path),
        remedy="The card (`faceplate models show`) lists what the model holds.",
    )


def load_network(
    model: StoredModel | str,
    device: torch.device | str = "cpu",
    *,
    part: str = "main",
    store: ModelStore | None = None,
) -> nn.Module:
    """The network of a stored model with its weights on `device` as float32, in evaluation mode, without gradients.

    Entries that inference never reads are neither stored nor allocated. Raises ModelError `model.not_imported`,
    `model.unknown`, `model.stored`, `model.card`.
    """
    model = (store or ModelStore()).get(model) if isinstance(model, str) else model
    spec = model.card.parts.get(part)
    if spec is None or NETWORKS[spec.network].entries is not None:
        raise _missing(model, f"network that stands alone under {part!r}")
    state = _tensors(model, part, device)
    if not state:
        raise _missing(model, f"weights of {part!r}")
    with torch.device("meta"):
        network = build(spec.network, spec.config)
    network = _filled(model, network, state)
    if _unallocated(network):  # something the state does not hold is computed when the network is built
        with torch.device(device):
            network = build(spec.network, spec.config)
        network = _filled(model, network, state)
    return network.float().eval().requires_grad_(False)  # what comes with Faceplate is stored in half precision


def _filled(model: StoredModel, network: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    drop_unread: Callable[[], None] | None = getattr(network, "drop_unread", None)
    if drop_unread is not None:
        drop_unread()
    try:
        network.load_state_dict(dict(state), strict=True, assign=True)
    except RuntimeError as error:
        raise ModelError(
            "model.stored",
            f"the weights of {model.id!r} do not fit this version's network: {str(error)[:300]}",
            path=str(model.path),
            remedy="Import the authors' file again with --replace.",
        ) from error
    return network


def _unallocated(network: nn.Module) -> bool:
    """Whether anything of the network is still without storage: parameters, buffers, plain attributes."""
    held = [*network.parameters(), *network.buffers()]
    for module in network.modules():
        held += [value for value in vars(module).values() if isinstance(value, Tensor)]
    return any(value.is_meta for value in held)


def load_tensors(
    model: StoredModel | str, device: torch.device | str = "cpu", *, store: ModelStore | None = None
) -> dict[str, Tensor]:
    """The tensors of a model that belong to no network, by the card's names: latent_avg, direction, codes ...

    float32. Raises ModelError as `load_network`.
    """
    model = (store or ModelStore()).get(model) if isinstance(model, str) else model
    return _tensors(model, TENSORS, device)


def load_style_codes(model: StoredModel | str, *, store: ModelStore | None = None) -> StyleCodes:
    """The style codes of a model; raises ModelError `model.stored` when it holds none, else as `load_network`."""
    model = (store or ModelStore()).get(model) if isinstance(model, str) else model
    codes = load_tensors(model).get("codes")
    names = model.stored.code_names
    if codes is None or len(names) != codes.shape[0]:
        raise _missing(model, "style codes")
    return StyleCodes(names, codes)


def load_lpips(
    trunk: Literal["vgg", "alex"], device: torch.device | str = "cpu", *, store: ModelStore | None = None
) -> LPIPS:
    """The LPIPS distance, joined from its linear weights and torchvision's trunk; raises as `load_network`."""
    from inference_server.networks.lpips import LPIPS, published_state

    models = store or ModelStore()
    heads, body = models.get(LPIPS_HEADS[trunk]), models.get(LPIPS_TRUNKS[trunk])
    network = LPIPS(trunk, **{k: v for k, v in heads.card.parts["main"].config.items() if k != "trunk"})
    state = published_state(trunk, _tensors(body, "main", device), _tensors(heads, "main", device))
    network.load_state_dict(state, strict=True)
    return network.to(device).eval()
