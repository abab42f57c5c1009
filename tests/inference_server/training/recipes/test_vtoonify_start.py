"""How VToonify begins: Kaiming, fusion that hands on, blocks of the teacher; what is trained and what is not."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from torch import nn

from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.vtoonify import ConditionalDiscriminator, Fusion, VToonify
from inference_server.training.draws import seeded
from inference_server.training.errors import TrainingError
from inference_server.training.recipe import Parts
from inference_server.training.recipes.vtoonify import vtoonify_recipe
from tests.inference_server.training.recipes import tiny_vtoonify as tiny


def built(table: dict[str, object], **more: object) -> tuple[Parts, VToonify]:
    recipe = vtoonify_recipe(table, tiny.teachers(str(table["backbone"]), **more))
    with seeded(torch.device("cpu"), 0):
        parts = recipe.build()
    return parts, cast(VToonify, parts.trained["translator"])


@pytest.mark.parametrize("backbone", ["dualstylegan", "toonify"])
@torch.no_grad()
def test_fusion_hands_on_the_generators_feature_and_picture(backbone: str) -> None:
    """At the beginning the network is its teacher's upper half on the encoder's feature (paper, figure 6c)."""
    _, network = built(tiny.translator_table(backbone))
    for k, fusion in enumerate(network.fusion_out):
        conv = cast(nn.Conv2d, fusion.conv if isinstance(fusion, Fusion) else fusion)
        own = torch.randn(1, conv.out_channels, 8, 8, generator=torch.Generator().manual_seed(k))
        nothing = torch.zeros(1, conv.in_channels - conv.out_channels, 8, 8)
        handed = conv(torch.cat([own, nothing], dim=1))
        assert float((handed - own).abs().max()) < 0.15
        noise = conv.weight.clone()
        for channel in range(conv.out_channels):
            noise[channel, channel, 1, 1] -= 1
        expected = 0.01 * math.sqrt(2 / (conv.in_channels * 9))
        assert float(noise.std()) == pytest.approx(expected, rel=0.3)
    for fusion in network.fusion_skip:
        conv = cast(nn.Conv2d, fusion)
        picture = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(9))
        handed = conv(torch.cat([picture, torch.zeros(1, conv.in_channels - 3, 8, 8)], dim=1))
        assert float((handed - picture).abs().max()) < 0.15


def test_everything_trained_is_kaiming_with_zero_biases() -> None:
    _, network = built(tiny.translator_table())
    for name, module in network.encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            deviation = math.sqrt(2 / (module.in_channels * module.kernel_size[0] ** 2))
            assert float(module.weight.detach().std()) == pytest.approx(deviation, rel=0.5), name
    for module in (*network.encoder.modules(), *network.fusion_out.modules(), *network.fusion_skip.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            assert not bool(module.bias.any())  # of AdaIN's gamma too, which is 1 otherwise


def test_generator_and_modres_are_the_teachers_and_stay_so() -> None:
    parts, network = built(tiny.translator_table())
    teacher = parts.frozen["style"]
    assert isinstance(teacher, DualStyleGAN)
    own, theirs = network.generator.state_dict(), teacher.state_dict()
    assert set(own) < set(theirs)  # what is never read is gone
    assert all(torch.equal(value, theirs[name]) for name, value in own.items())
    for i in range(1, 7):
        for name, value in network.res[i].state_dict().items():
            assert torch.equal(value, teacher.res[i].state_dict()[name])
    assert not any(p.requires_grad for p in network.parameters())  # the loop switches on what an optimiser has
    trained = {id(p) for group in parts.optimisers["translator"].param_groups for p in group["params"]}
    names = {name.split(".")[0] for name, p in network.named_parameters() if id(p) in trained}
    assert names == {"encoder", "fusion_out", "fusion_skip"}


def test_the_first_stage_trains_the_encoder_only_and_the_second_begins_with_it() -> None:
    parts, first = built(tiny.encoder_table())
    trained = {id(p) for group in parts.optimisers["encoder"].param_groups for p in group["params"]}
    assert {name.split(".")[0] for name, p in first.named_parameters() if id(p) in trained} == {"encoder"}
    _, second = built(tiny.translator_table(), encoder=first.encoder.state_dict())
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(second.encoder.state_dict()[name], value)


def test_optimisers_and_discriminators() -> None:
    d, _ = built(tiny.translator_table())
    t, _ = built(tiny.translator_table("toonify"))
    for parts in (d, t):
        for optimiser in parts.optimisers.values():
            assert isinstance(optimiser, torch.optim.Adam)
            assert optimiser.defaults["lr"] == 1e-4
            assert optimiser.defaults["betas"] == (0.9, 0.99)
        assert parts.ema == ("translator",)
    critic = d.trained["discriminator"]
    assert isinstance(critic, ConditionalDiscriminator)
    assert critic.style_mapper.num_embeddings == tiny.STYLES
    assert not isinstance(t.trained["discriminator"], ConditionalDiscriminator)
    with torch.device("meta"):
        published = ConditionalDiscriminator(256, 317)
    assert sum(p.numel() for p in published.parameters()) == 28_958_016


@pytest.mark.parametrize(
    ("table", "more", "says"),
    [
        (tiny.translator_table(style={"exemplar": 3}), {}, "style.exemplar is 3.*there are 3 exemplars"),
        (
            tiny.translator_table(backbone="dualstylegan") | {"backbone": "toonify"},
            {"as": "dualstylegan"},
            "not go with",
        ),
        (tiny.encoder_table(network={**tiny.NETWORK, "out_size": 256}), {}, "256.*64"),
        (tiny.translator_table("toonify", data={"blend": [1.0] * 18}), {}, "data.blend has 18 numbers.* 10 layers"),
        (tiny.translator_table(losses={"flicker_crop": 111}), {}, "flicker_crop 111 must be a multiple of 2"),
        (tiny.translator_table(), {"perceptual": None}, "perceptual distance"),
        (tiny.translator_table(stage="everything"), {}, "recipe.stage is 'everything'"),
        (tiny.translator_table(style={"degree": 1.5}), {}, "degree 1.5"),
        (tiny.encoder_table(flicker=1.0), {}, "recipe.flicker is not a known key"),
    ],
)
def test_what_does_not_go_together_is_refused_before_training(
    table: dict[str, object], more: dict[str, object], says: str
) -> None:
    backbone = str(more.pop("as", table["backbone"]))
    with pytest.raises(TrainingError, match=says) as caught:
        vtoonify_recipe(table, tiny.teachers(backbone, **more)).build()
    assert caught.value.code == "training.config"
