"""The two-stage translator: sizes as published, any picture size, and what the paper's order of inputs implies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from inference_server.networks import two_stage
from inference_server.networks.tensors import ShapeError
from inference_server.networks.two_stage import Memory, Refiner, Translator, UNet, folded, ready, step
from inference_server.networks.two_stage_graphs import GraphedStep

SMALL = (4, 8, 12)


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def lively(network: Any, seed: int) -> Any:
    """Weights and running statistics that are not those of an untrained network."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean = torch.randn_like(module.bias) * 0.1
            module.running_var = torch.rand_like(module.bias) + 0.5
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    last = (network if isinstance(network, UNet) else network.net).last
    with torch.no_grad():
        last.weight *= 0.1  # tanh must not hide a difference
    return network.eval()


def test_parameters_are_those_of_the_table() -> None:
    translator, refiner = Translator(), Refiner()
    assert (count(translator), count(refiner)) == (4_754_307, 804_731)
    assert count(translator) + count(refiner) == pytest.approx(5.56e6, rel=0.01)


@pytest.mark.parametrize("styles", [2, 4])
def test_a_translator_of_several_styles_is_hardly_larger(styles: int) -> None:
    translator = Translator(styles=styles)
    assert count(translator) == 4_754_307 + 288 * styles
    assert count(translator) + count(Refiner()) == pytest.approx(5.56e6, rel=0.01)


def test_weights_choose_and_mix_styles() -> None:
    translator = lively(Translator(SMALL, styles=2), 4)
    x = (torch.rand(1, 3, 24, 24) * 2 - 1).expand(3, -1, -1, -1)
    first, second, between = translator(x, torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    assert (first - second).abs().max() > 0.01
    assert (between - first).abs().mean() < (second - first).abs().mean()
    # In a batch every frame has its own style, and a sequence is drawn in the style it is asked for.
    y, _ = step(translator, Refiner(SMALL).eval(), x[:1], None, torch.tensor([[0.0, 1.0]]))
    assert torch.allclose(y[0], second, atol=1e-5)
    for style in (None, torch.ones(3, 1), torch.ones(1, 2)):
        with pytest.raises(ShapeError, match="style"):
            translator(x, style)
    with pytest.raises(ValueError, match="one style or more"):
        Translator(SMALL, styles=0)


@pytest.mark.parametrize(("levels", "expected"), [(5, 236), (4, 116)])
def test_receptive_field_is_that_of_the_table(levels: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A mean counts every pixel that a maximum could choose.
    monkeypatch.setattr(two_stage.F, "max_pool2d", functional.avg_pool2d)
    net = UNet(1, (1,) * levels).double().eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 0.1)
    widest = 0
    for at in range(256, 256 + net.multiple):
        x = torch.zeros(1, 1, 512, net.multiple, dtype=torch.float64, requires_grad=True)
        net(x)[0, 0, at, 0].backward()
        assert x.grad is not None
        rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero()
        widest = max(widest, int(rows.max() - rows.min()) + 1)
    assert widest == expected


@pytest.mark.parametrize("size", [(16, 16), (17, 30), (5, 3), (64, 50)])
def test_any_size_comes_back_as_it_was(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size) * 2 - 1
    y = Translator(SMALL).eval()(x)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_an_untrained_refiner_returns_the_translators_picture() -> None:
    translator, refiner = lively(Translator(SMALL), 1), Refiner(SMALL).eval()
    memory = None
    for t in range(3):
        x = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(t)) * 2 - 1
        y, memory = step(translator, refiner, x, memory)
        assert torch.equal(y, translator(x))


def test_the_refiner_sees_frames_in_order_and_its_own_results() -> None:
    seen = []

    class Spy(Refiner):
        def forward(self, frames: torch.Tensor, refined: torch.Tensor, intermediate: torch.Tensor) -> torch.Tensor:
            seen.append((frames[0, ::3, 0, 0].tolist(), refined[0, ::3, 0, 0].tolist()))
            return intermediate + 10

    memory: Memory | None = None
    for t in range(4):
        _, memory = step(nn.Identity(), Spy(SMALL), torch.full((1, 3, 8, 8), float(t)), memory)
    assert seen == [
        ([0, 0, 0], [0, 0]),
        ([0, 0, 1], [0, 10]),
        ([0, 1, 2], [10, 11]),
        ([1, 2, 3], [11, 12]),
    ]


def test_a_still_sequence_settles() -> None:
    translator, refiner = lively(Translator(SMALL), 2), Refiner(SMALL).eval()
    x = torch.rand(1, 3, 16, 16)
    y, memory = step(translator, refiner, x, None)
    again, _ = step(translator, refiner, x, memory)
    assert torch.equal(y, again)


@pytest.mark.parametrize("network", [Translator(SMALL), Refiner(SMALL).net])
def test_folding_the_norms_changes_nothing(network: nn.Module) -> None:
    network = lively(network, 3)
    x = torch.rand(1, 3 if isinstance(network, Translator) else 18, 32, 48) * 2 - 1
    flat = folded(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in flat.modules())
    assert torch.allclose(flat(x), network(x), atol=1e-5)


@pytest.mark.parametrize("network", [Translator(SMALL), Refiner(SMALL).net])
def test_the_fast_layout_changes_nothing(network: nn.Module) -> None:
    network = lively(network, 5)
    x = torch.rand(2, 3 if isinstance(network, Translator) else 18, 30, 48) * 2 - 1
    fast = ready(network)
    with torch.inference_mode():
        picture = fast(x)
        assert torch.allclose(picture, network(x), atol=1e-4)
    assert picture.stride(1) == 1
    assert next(ready(network, torch.bfloat16).parameters()).dtype == torch.bfloat16


def test_graphs_replay_a_sequence_shape_by_shape() -> None:
    """With a recorder that runs the work anew, as CUDA's replay does: the same fixed tensors in and out."""
    translator, refiner = lively(Translator(SMALL, styles=2), 6), Refiner(SMALL).eval()
    refiner.net = lively(refiner.net, 7)
    captured = []

    def capture(work: Any) -> Any:
        out = tuple(torch.empty_like(t) for t in work())
        captured.append(out)

        def replay() -> Any:
            for own, value in zip(out, work(), strict=True):
                own.copy_(value)
            return out

        return replay

    graphed = GraphedStep(translator, refiner, capture)
    torch.manual_seed(8)
    for size in ((16, 24), (24, 16), (16, 24)):
        style = torch.tensor([[0.3, 0.7]])
        memory: Memory | None = None
        own: Memory | None = None
        results = []
        for _ in range(4):
            x = torch.rand(1, 3, *size) * 2 - 1
            wanted, memory = step(translator, refiner, x, memory, style)
            picture, own = graphed(x, own, style)
            results.append((picture, wanted))
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in results)  # nor are earlier results written over
    assert len(captured) == 4  # begun and going on, for each of two shapes


def test_wrong_shapes_are_refused() -> None:
    x = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ShapeError):
        Translator(SMALL)(x[0])
    with pytest.raises(ShapeError):
        Refiner(SMALL)(torch.zeros(1, 9, 16, 16), torch.zeros(1, 6, 16, 8), x)
