"""How an edit moves a face is found where it moves, and what the generator cannot draw moves along."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from inference_server.effects.style_portrait import moving
from inference_server.effects.style_portrait.mattes import moved_regions, parsed_regions
from inference_server.networks.bisenet import CLASSES, BiSeNet
from inference_server.networks.tensors import imagenet_normalise
from tests.inference_server.effects.conftest import Portrait


def face_of(portrait: Portrait) -> Tensor:
    """[3, 256, 256] in -1..1."""
    crop = portrait.picture[20:276, 100:356]
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))) * 2 - 1


def bulge(side: int, reach: float) -> Tensor:
    """A smooth move [2, side, side] in parts of the side, right and down in the middle."""
    at = torch.linspace(-1, 1, side)
    weight = torch.exp(-3 * (at[None] ** 2 + at[:, None] ** 2))
    return torch.stack([-reach * weight, -0.5 * reach * weight])


def moved(picture: Tensor, motion: Tensor) -> Tensor:
    side = picture.shape[-1]
    base = functional.affine_grid(torch.eye(2, 3)[None], [1, 3, side, side], align_corners=False)
    grid = base + 2 * motion.permute(1, 2, 0)[None]
    return functional.grid_sample(picture[None], grid, mode="bicubic", padding_mode="border", align_corners=False)[0]


def test_a_move_is_found_and_new_texture_is_none(portrait: Portrait) -> None:
    face = face_of(portrait)
    truth = bulge(256, 0.02)
    found = moving.motion(moved(face, truth), face)
    inner = (slice(None), slice(70, 190), slice(70, 190))
    assert float((found - truth)[inner].abs().mean()) < 0.2 * float(truth[inner].abs().mean())
    assert not moving.motion(face, face).any()
    generator = torch.Generator().manual_seed(3)
    spots = functional.interpolate(torch.randn(1, 1, 40, 40, generator=generator), 256, mode="bicubic")[0]
    assert float(moving.motion((face + 0.3 * spots).clamp(-1, 1), face).abs().max()) < 0.006
    assert float(moving.motion(face * 0.8 - 0.1, face).abs().max()) < 0.004


def test_what_the_generator_cannot_draw_goes_along(portrait: Portrait) -> None:
    """R knows no freckle; E, in which the cheek has moved, gets it where the cheek is now, once."""
    drawn = (face_of(portrait) + 1) / 2
    plate = drawn.clone()
    plate[:, 120:124, 126:130] = 0.0
    motion = torch.zeros(2, 256, 256)
    motion[0] = -10.0
    edited = torch.roll(drawn, 10, dims=2)
    out = moving.with_residual(plate, edited, drawn, motion)
    dark = (edited - out).abs().amax(dim=0) > 0.1
    rows, columns = torch.nonzero(dark, as_tuple=True)
    assert (int(columns.min()), int(columns.max())) == (136, 139)
    assert (int(rows.min()), int(rows.max())) == (120, 123)
    still = moving.with_residual(plate, drawn, drawn, None)
    assert torch.allclose(still, plate, atol=1e-6)


def test_regions_of_both_pictures(portrait: Portrait) -> None:
    torch.manual_seed(1)
    parser = BiSeNet(width=8).eval()
    pictures = torch.rand(2, 3, 96, 96) * 2 - 1
    with torch.no_grad():
        share = {name: parsed_regions(parser, pictures, name) for name in ("head", "face", "hair", "head,-hair")}
        background = [CLASSES.index(name) for name in ("background", "cloth")]
        logits = parser.parse(imagenet_normalise((pictures + 1) / 2)).softmax(dim=1)
    assert torch.allclose(share["head"], 1 - logits[:, background].sum(dim=1), atol=1e-5)
    assert torch.allclose(share["hair"], logits[:, CLASSES.index("hair")])
    assert torch.allclose(share["head,-hair"], share["head"] * (1 - share["hair"]))
    assert (share["face"] <= share["head"] + 1e-6).all()


def test_built_in_mattes_cover_where_the_face_was_and_where_it_is() -> None:
    skin = torch.zeros(20, 30)
    skin[5:15, 5:15] = 1
    warp = torch.zeros(2, 20, 30)
    warp[0] = -4.0  # the edited picture shows at p what was 4 px to the left: it has moved right
    union = moved_regions({"skin": skin}, "skin", warp, (20, 30))
    assert torch.equal(union[10] > 0.5, (torch.arange(30) >= 5) & (torch.arange(30) < 19))
