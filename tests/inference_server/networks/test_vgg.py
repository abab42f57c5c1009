"""VGG19: torchvision's numbering, its taps against the plain chain of layers, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from host_bridge.errors import ModelError
from inference_server.models import ModelStore, import_file, load_network, official_card
from inference_server.models.store import Folder
from inference_server.networks.tensors import ShapeError
from inference_server.networks.vgg import STAGES, TAPS, VGG19


def published_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's file, from its list of widths and pools."""
    names: dict[str, tuple[int, ...]] = {}
    index, channels = 0, 3
    for width, convs in STAGES:
        for _ in range(convs):
            names[f"features.{index}.weight"] = (width, channels, 3, 3)
            names[f"features.{index}.bias"] = (width,)
            index, channels = index + 2, width
        index += 1
    for number, (wide, deep) in {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}.items():
        names |= {f"classifier.{number}.weight": (wide, deep), f"classifier.{number}.bias": (wide,)}
    return names


def test_the_whole_network_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        state = VGG19("relu5_4").state_dict()
    expected = {k: v for k, v in published_names().items() if k.startswith("features.")}
    assert {k: tuple(v.shape) for k, v in state.items()} == expected
    assert max(TAPS.values()) == 35  # torchvision's last ReLU


def test_taps_are_the_chain_of_layers() -> None:
    torch.manual_seed(3)
    network = VGG19("relu3_1", width_divisor=16)
    state = network.state_dict()
    pictures = torch.rand(2, 3, 20, 12) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    # the recipe's own words: subtract 2 * mean - 1, divide by 2 * deviation
    x = (pictures - (2 * mean - 1).view(1, 3, 1, 1)) / (2 * std).view(1, 3, 1, 1)

    def layer(x: Tensor, index: int) -> Tensor:
        return F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))

    wanted = {}
    for stage in ((("relu1_1", 0), ("relu1_2", 2)), (("relu2_1", 5), ("relu2_2", 7)), (("relu3_1", 10),)):
        if stage[0][1]:
            x = F.max_pool2d(x, 2)
        for name, index in stage:
            x = wanted[name] = layer(x, index)
    taps = network(pictures)
    assert taps.keys() == wanted.keys()
    for name, tap in taps.items():
        torch.testing.assert_close(tap, wanted[name])
    assert taps["relu3_1"].shape == (2, 16, 5, 3)


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="relu6_1"):
        VGG19("relu6_1")
    with pytest.raises(ShapeError, match=r"H, W >= 4 for relu3_1, got \[1, 3, 3, 8\]"):
        VGG19(width_divisor=16)(torch.zeros(1, 3, 3, 8))


def test_the_card_takes_the_published_file(tmp_path: Path) -> None:
    """Of a file with torchvision's names it keeps what the losses read; another network's file is refused."""
    card = official_card("torchvision-vgg19")
    kept = {k: torch.rand(v) for k, v in published_names().items() if int(k.split(".")[1]) <= 10 and k[0] == "f"}
    others = {k: torch.zeros(1) for k in published_names() if k not in kept}
    torch.save({**kept, **others}, tmp_path / card.file)
    store = ModelStore((Folder(tmp_path / "models", True),))
    import_file(tmp_path / card.file, store, card)
    network = load_network("torchvision-vgg19", store=store)
    assert isinstance(network, VGG19)
    assert all(torch.equal(v, kept[k]) for k, v in network.state_dict().items())
    torch.save({k: v for k, v in kept.items() if "features.10" not in k}, tmp_path / "cut.pth")
    with pytest.raises(ModelError, match=r"2 entries missing \(features.10"):
        import_file(tmp_path / "cut.pth", store, card, replace=True)
