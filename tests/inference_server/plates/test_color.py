"""Colour: interchange roles, errors that help, encodings that invert, exposure fixed by the shot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PyOpenColorIO as ocio
import pytest
import torch

from host_bridge.errors import ColorError
from inference_server.plates.color import (
    ColorConfig,
    ViewerTransform,
    auto_exposure,
    from_picture,
    srgb_decode,
    srgb_encode,
    to_picture,
)


def _values() -> np.ndarray:
    rng = np.random.default_rng(1)
    values = rng.normal(0.3, 0.6, (8, 16, 3)).astype(np.float32)
    values[0, 0] = (37.0, -0.4, 1.5)
    return values


@pytest.mark.parametrize("space", ["", "ACEScg", "ACES2065-1", "Linear P3-D65", "lin_rec709"])
def test_scene_round_trip_is_exact_to_float_rounding(space: str) -> None:
    color = ColorConfig().transform(space)
    values = _values()
    assert color.linear
    np.testing.assert_allclose(color.from_scene(color.to_scene(values)), values, rtol=2e-5, atol=2e-6)


def test_known_primaries() -> None:
    color = ColorConfig().transform("ACEScg")
    red = color.to_scene(np.array([[[1.0, 0.0, 0.0]]], np.float32))[0, 0]
    np.testing.assert_allclose(red, [1.70505, -0.13026, -0.02400], atol=2e-4)  # AP1 to Rec.709, Bradford D60 to D65


def test_encoded_space_is_not_linear_and_round_trips() -> None:
    color = ColorConfig().transform("sRGB - Texture")
    assert not color.linear
    values = np.linspace(0, 1, 48, dtype=np.float32).reshape(4, 4, 3)
    expected = srgb_decode(torch.from_numpy(values)).numpy()
    np.testing.assert_allclose(color.to_scene(values), expected, atol=1e-5)


def test_a_config_without_an_srgb_space_works_through_its_interchange_role(tmp_path: Path) -> None:
    config = ocio.Config()
    config.setVersion(2, 1)
    reference = ocio.ColorSpace(name="studio_reference", family="", encoding="scene-linear")
    config.addColorSpace(reference)
    half = ocio.ColorSpace(name="half_light", family="")
    half.setTransform(
        ocio.MatrixTransform(np.diag([2.0, 2.0, 2.0, 1.0]).ravel().tolist()), ocio.COLORSPACE_DIR_TO_REFERENCE
    )
    config.addColorSpace(half)
    config.setRole("aces_interchange", "studio_reference")
    config.setRole("scene_linear", "studio_reference")
    config.setRole("default", "studio_reference")
    config.addDisplayView("monitor", "film", "studio_reference", looks="")
    path = tmp_path / "config.ocio"
    path.write_text(config.serialize())
    studio = ColorConfig(str(path))
    white = np.ones((1, 1, 3), np.float32)
    plain = studio.transform("studio_reference").to_scene(white)
    np.testing.assert_allclose(studio.transform("half_light").to_scene(white), 2 * plain, rtol=1e-5)
    assert studio.hash != ColorConfig().hash
    with pytest.raises(ColorError) as caught:
        studio.check_hash(ColorConfig().hash)
    assert caught.value.code == "color.config_mismatch"


def test_unknown_space_names_the_nearest() -> None:
    with pytest.raises(ColorError, match="Did you mean 'ACEScg'") as caught:
        ColorConfig().transform("ACEScgg")
    assert caught.value.code == "color.unknown_space"


def test_data_space_is_refused() -> None:
    with pytest.raises(ColorError, match="holds data"):
        ColorConfig().transform("Raw")


def test_unreadable_config(tmp_path: Path) -> None:
    path = tmp_path / "broken.ocio"
    path.write_text("ocio_profile_version: banana\n")
    with pytest.raises(ColorError) as caught:
        ColorConfig(str(path))
    assert caught.value.code == "color.config"
    assert caught.value.path == str(path)


def test_picture_holds_zero_to_one_after_exposure_and_inverts() -> None:
    scene = torch.tensor([-1.0, 0.0, 0.001, 0.18, 0.49, 37.0])
    picture = to_picture(scene, 1.0)
    assert picture.min() == 0
    assert picture.max() == pytest.approx(1, abs=1e-6)
    back = from_picture(picture, 1.0)
    torch.testing.assert_close(back[1:5], scene[1:5], rtol=1e-5, atol=1e-6)
    assert back[5] == pytest.approx(0.5)  # one stop up, the picture clips at 0.5


def test_srgb_curve_at_known_points() -> None:
    torch.testing.assert_close(
        srgb_encode(torch.tensor([0.0, 0.0031308, 0.18, 1.0])),
        torch.tensor([0.0, 0.04045, 0.46136, 1.0]),
        atol=2e-5,
        rtol=0,
    )


def test_auto_exposure_is_a_fixed_eighth_of_a_stop() -> None:
    assert auto_exposure([0.09, 0.09, 5.0]) == 1.0
    assert auto_exposure([0.17, 0.19]) == 0.0
    assert auto_exposure([]) == 0.0
    assert auto_exposure([1e-9]) == 8.0
    assert (auto_exposure([0.123]) * 8) % 1 == 0


def test_bake_goes_through_the_display_and_refuses_unknown_views() -> None:
    color = ColorConfig().transform("ACEScg")
    grey = np.full((2, 2, 3), 0.18, np.float32)
    plain = color.bake(grey, ViewerTransform())
    assert plain.dtype == np.uint8
    assert abs(int(plain[0, 0, 0]) - round(0.46136 * 255)) <= 1
    aces = color.bake(grey, ViewerTransform("sRGB - Display", "ACES 1.0 - SDR Video"))
    assert 60 < int(aces[0, 0, 0]) < 110
    assert color.bake(grey, ViewerTransform(exposure=1.0))[0, 0, 0] > plain[0, 0, 0]
    with pytest.raises(ColorError, match="unknown view"):
        color.bake(grey, ViewerTransform("sRGB - Display", "nonsense"))
