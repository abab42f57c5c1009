"""The picture is found under every usual naming, and what is not there is answered with what is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from host_bridge.errors import PlateError
from inference_server.plates.attributes import encode
from inference_server.plates.layers import choose, choose_channel
from inference_server.plates.types import Attribute, ChosenLayer, Part, PlateFrame, Samples, Window, rgb_of

_BOX = Window(0, 0, 3, 2)


def _part(channels: Iterable[str], name: str = "", dtype: type = np.float16, **header: Attribute) -> Part:
    arrays: dict[str, Samples] = {c: np.full((2, 3), i, dtype) for i, c in enumerate(channels)}
    return Part(name, arrays, _BOX, _BOX, 1.0, header)


def _frame(*parts: Part) -> PlateFrame:
    return PlateFrame(1001, "plate.1001.exr", parts)


@pytest.mark.parametrize(
    ("names", "layer", "expected"),
    [
        ("A B G R Z", "", ("R", "G", "B", "A")),
        ("a b g r", "", ("r", "g", "b", "a")),
        ("alpha blue green red", "", ("red", "green", "blue", "alpha")),
        ("R G B", "", ("R", "G", "B", "")),
        ("Y", "", ("Y", "Y", "Y", "")),
        ("A Y", "", ("Y", "Y", "Y", "A")),
        ("A B G R diffuse.B diffuse.G diffuse.R", "", ("R", "G", "B", "A")),
        ("A B G R diffuse.B diffuse.G diffuse.R", "diffuse", ("diffuse.R", "diffuse.G", "diffuse.B", "A")),
        ("s.red s.green s.blue s.alpha R G B", "s", ("s.red", "s.green", "s.blue", "s.alpha")),
        ("V.Combined.R V.Combined.G V.Combined.B V.Depth.Z", "", ("V.Combined.R", "V.Combined.G", "V.Combined.B", "")),
        ("a.R a.G a.B b.R b.G b.B beauty.R beauty.G beauty.B", "", ("beauty.R", "beauty.G", "beauty.B", "")),
        ("R G B depth.Z", "depth", ("depth.Z", "depth.Z", "depth.Z", "")),
        ("R G B matte.a", "matte", ("matte.a", "matte.a", "matte.a", "")),
    ],
)  # fmt: skip
def test_channel_names(names: str, layer: str, expected: tuple[str, str, str, str]) -> None:
    assert choose(_frame(_part(names.split())), layer) == ChosenLayer(0, *expected)


def test_parts_by_name_by_index_and_as_layers() -> None:
    frame = _frame(_part(["id"], "ids", np.uint32), _part("RGBA", "beauty"), _part("RGB", "spec"))
    assert choose(frame) == ChosenLayer(1, "R", "G", "B", "A")
    assert choose(frame, part="spec").part == 2
    assert choose(frame, part="1").part == 1
    assert choose(frame, layer="spec") == ChosenLayer(2, "R", "G", "B", "")
    with pytest.raises(PlateError, match=r"There is: ids, beauty, spec") as caught:
        choose(frame, part="speck")
    assert caught.value.code == "plate.layer"
    assert "Did you mean 'spec'" in caught.value.remedy
    with pytest.raises(PlateError, match="ids, not a picture"):
        choose(frame, layer="ids")


def test_views_of_parts() -> None:
    frame = _frame(
        _part("RGB", "rgba.left", view=encode("string", "left")),
        _part("RGB", "rgba.right", view=encode("string", "right")),
        _part("Z", "depth.right", view=encode("string", "right")),
    )
    assert choose(frame).part == 0
    assert choose(frame, view="right").part == 1
    assert choose(frame, layer="depth", view="right").part == 2
    with pytest.raises(PlateError, match="Did you mean 'right'"):
        choose(frame, view="rigth")


def test_views_in_channel_names() -> None:
    views = encode("stringvector", ["left", "right"])
    names = ["R", "G", "B", "right.R", "right.G", "right.B", "spec.right.R", "spec.right.G", "spec.right.B"]
    names += ["right.diff.R", "right.diff.G", "right.diff.B"]
    frame = _frame(_part(names, multiView=views))
    assert choose(frame).red == "R"
    assert choose(frame, view="left").red == "R"
    assert choose(frame, view="right").red == "right.R"
    assert choose(frame, layer="spec", view="right").red == "spec.right.R"
    assert choose(frame, layer="diff", view="right").green == "right.diff.G"


def test_a_file_without_views_is_the_view_of_its_name() -> None:
    assert choose(_frame(_part("RGB")), view="right") == ChosenLayer(0, "R", "G", "B", "")


def test_nothing_to_choose_lists_what_there_is() -> None:
    frame = _frame(_part(["a.R", "a.G", "a.B", "b.R", "b.G", "b.B"]))
    with pytest.raises(PlateError, match=r"a \(R, G, B\); b \(R, G, B\)") as caught:
        choose(frame)
    assert caught.value.frame == 1001
    with pytest.raises(PlateError, match="Did you mean 'diffuse'"):
        choose(_frame(_part(["R", "G", "B", "diffuse.R", "diffuse.G", "diffuse.B"])), "difuse")


def test_a_grey_plate_is_three_equal_channels() -> None:
    frame = _frame(_part("Y"))
    picture = rgb_of(frame, choose(frame))
    assert picture.shape == (2, 3, 3)
    assert (picture[..., 0] == picture[..., 2]).all()


def test_matte_channels() -> None:
    frame = _frame(_part(["A", "B", "G", "R", "roto.head"]))
    assert choose_channel(frame, "A") == (0, "A")
    assert choose_channel(frame, "alpha") == (0, "A")
    assert choose_channel(frame, "red") == (0, "R")
    assert choose_channel(frame, "roto.head") == (0, "roto.head")
    assert choose_channel(_frame(_part("Y")), "A") == (0, "Y")
    with pytest.raises(PlateError, match=r"roto\.head") as caught:
        choose_channel(replace(frame, path="m.exr"), "roto.hand")
    assert caught.value.code == "plate.matte"
