"""Which channels of a file are the picture: by part, view and layer, under the names renderers and hosts use.

Colour channels are R, G, B, A in any case or spelled red, green, blue, alpha, alone or behind a layer's name
(`diffuse.R`, `ViewLayer.Combined.R`). One `Y` (or a layer's only channel) is a grey picture: all three are that one.
A layer may also be a part of that name. Views are a part's `view` attribute, or the `multiView` attribute with channels
`right.R`, `diffuse.right.R` or `right.diffuse.R`, whose first view has no name in the channels. A file that declares no
views is one view, whatever view its file name stands for.

Without a layer: the first part with plain R, G, B; else a plain Y; else the only layer of the file that has colours,
or the one called rgba, beauty, combined or color. A layer without alpha of its own has its part's plain alpha.
Integer channels are ids, not pictures, and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches

import numpy as np

from host_bridge.errors import PlateError
from inference_server.plates.attributes import decode
from inference_server.plates.types import ChosenLayer, Part, PlateFrame

_COLOURS = {"r": "R", "red": "R", "g": "G", "green": "G", "b": "B", "blue": "B", "a": "A", "alpha": "A"}
_USUAL = ("rgba", "rgb", "beauty", "combined", "color", "colour")
_Layer = dict[str, str]  # R, G, B, A, Y or a channel's own last name -> the channel


def choose(frame: PlateFrame, layer: str = "", part: str = "", view: str = "") -> ChosenLayer:
    """The channels to treat. `part` is a name or an index as text; "" means the rule of the module's docstring.

    Raises PlateError `plate.layer` with a list of what there is.
    """
    indices = _parts(frame, part)
    indices, prefixes = _views(frame, indices, view)
    by_part = {index: _layers(frame.parts[index]) for index in indices}
    for index in indices:
        for name in _names_of(layer, prefixes):
            colours = by_part[index].get(name)
            chosen = _colours(colours, explicit=bool(layer)) if colours else None
            if chosen:
                return _checked(frame, index, chosen, by_part[index])
    if layer:
        for index in indices:
            if frame.parts[index].name in {layer, f"{layer}.{view}", f"{view}.{layer}"}:
                chosen = _colours(by_part[index].get("", {}), explicit=True)
                if chosen:
                    return _checked(frame, index, chosen, by_part[index])
        raise _no_layer(frame, layer)
    return _usual(frame, by_part)


def layers_of(frame: PlateFrame, part: str = "", view: str = "") -> list[str]:
    """The layers with colour that `choose` takes by name in that part and view, in the file's order.

    Plain channels, which need no name, and layers that only an artist can know to be pictures (depth, masks) are not
    listed. Samples are not looked at. Raises PlateError `plate.layer` for a part or view that is not there.
    """
    declared = views_of(frame)
    view = view or next(iter(declared), "")
    listed = []
    for index in _views(frame, _parts(frame, part), view)[0]:
        own = frame.parts[index].name if len(frame.parts) > 1 else ""
        for found, channels in _layers(frame.parts[index]).items():
            name = ".".join(word for word in (found or own).split(".") if word not in declared)
            if name and name not in listed and _colours(channels, explicit=False):
                with suppress(PlateError):  # ids, and layers of another view
                    choose(frame, name, part, view)
                    listed.append(name)
    return listed


def views_of(frame: PlateFrame) -> list[str]:
    """The views a file declares, the default first."""
    return _declared(frame.parts)


def _usual(frame: PlateFrame, by_part: dict[int, dict[str, _Layer]]) -> ChosenLayer:
    coloured = {
        (index, name): colours
        for index, layers in by_part.items()
        for name, channels in layers.items()
        if (colours := _colours(channels, explicit=False)) is not None
    }
    usual = [key for key in coloured if key[1].rpartition(".")[2].lower() in _USUAL]
    options = usual[:1] or (list(coloured) if len(coloured) == 1 else [])
    if not options:
        raise _no_layer(frame, "")
    index = options[0][0]
    return _checked(frame, index, coloured[options[0]], by_part[index])


def _layers(part: Part) -> dict[str, _Layer]:
    """Layer name -> its channels by colour (or last) name; "" is the plain channels."""
    found: dict[str, _Layer] = {}
    for channel in part.channels:
        layer, _, last = channel.rpartition(".")
        found.setdefault(layer, {}).setdefault(_COLOURS.get(last.lower(), last), channel)
    return found


def _colours(channels: _Layer, *, explicit: bool) -> _Layer | None:
    """The channels as R, G, B and perhaps A, or None; a layer named by the artist may have one channel of any name."""
    if {"R", "G", "B"} <= channels.keys():
        return channels
    colourless = [name for name in channels if name != "A"]
    grey = channels.get("Y") or channels.get("y")
    if grey is None and explicit and len(colourless) <= 1:
        grey = channels[colourless[0]] if colourless else channels["A"]
    if grey is None:
        return None
    alpha = {"A": channels["A"]} if "A" in channels and channels["A"] != grey else {}
    return {"R": grey, "G": grey, "B": grey, **alpha}


def _checked(frame: PlateFrame, index: int, colours: _Layer, layers: dict[str, _Layer]) -> ChosenLayer:
    part = frame.parts[index]
    for channel in (colours["R"], colours["G"], colours["B"]):
        if part.channels[channel].dtype == np.uint32:
            raise PlateError(
                "plate.layer",
                f"channel {channel!r} holds whole-number ids, not a picture",
                value=channel,
                frame=frame.frame,
                path=frame.path,
                remedy=_remedy(frame),
            )
    alpha = colours.get("A") or layers.get("", {}).get("A", "")
    if alpha in (colours["R"], colours["G"], colours["B"]):
        alpha = ""
    return ChosenLayer(index, colours["R"], colours["G"], colours["B"], alpha)


def _parts(frame: PlateFrame, part: str) -> list[int]:
    if not part:
        return list(range(len(frame.parts)))
    named = [index for index, candidate in enumerate(frame.parts) if candidate.name == part]
    if named:
        return named
    if part.isdecimal() and int(part) < len(frame.parts):
        return [int(part)]
    names = [candidate.name or str(index) for index, candidate in enumerate(frame.parts)]
    raise _unknown(frame, "part", part, names)


def _views(frame: PlateFrame, indices: list[int], view: str) -> tuple[list[int], list[str]]:
    """The parts of the view, and its names inside channel names ("" = none)."""
    own = {index: _attribute(frame.parts[index], "view") for index in indices}
    shared = _shared([frame.parts[index] for index in indices])
    declared = _declared([frame.parts[index] for index in indices])
    if not declared:
        return indices, [""]
    wanted = view or declared[0]
    if wanted not in declared:
        raise _unknown(frame, "view", wanted, declared)
    parts = [index for index in indices if own[index] == wanted]
    if parts:
        return parts, ["", wanted]
    return indices, [wanted] if shared and wanted != shared[0] else ["", wanted]


def _declared(parts: Sequence[Part]) -> list[str]:
    own = [str(v) for part in parts if (v := _attribute(part, "view"))]
    return list(dict.fromkeys([*own, *_shared(parts)]))


def _shared(parts: Sequence[Part]) -> list[str]:
    found = next((v for part in parts if isinstance(v := _attribute(part, "multiView"), list)), [])
    return [str(view) for view in found]


def _attribute(part: Part, name: str) -> object:
    stored = part.header.get(name)
    return decode(stored) if stored is not None else None


def _names_of(layer: str, views: Iterable[str]) -> list[str]:
    names: list[str] = []
    for view in views:
        names += [layer] if not view else [view] if not layer else [f"{layer}.{view}", f"{view}.{layer}"]
    return names


def _listing(frame: PlateFrame) -> list[str]:
    lines = []
    for index, part in enumerate(frame.parts):
        layers = [f"{name or 'plain'} ({', '.join(channels)})" for name, channels in _layers(part).items()]
        lines.append(f"part {part.name or index}: {'; '.join(layers)}")
    return lines


def _remedy(frame: PlateFrame) -> str:
    listing = " | ".join(_listing(frame))
    return f"There is: {listing[:600]}{' ...' if len(listing) > 600 else ''}."


def _no_layer(frame: PlateFrame, layer: str) -> PlateError:
    names = {name for part in frame.parts for name in _layers(part) if name} | {p.name for p in frame.parts if p.name}
    near = get_close_matches(layer, sorted(names), n=1, cutoff=0.5) if layer else []
    hint = f"Did you mean {near[0]!r}? " if near else "" if layer else "Choose one with --layer. "
    what = (
        f"no layer {layer!r} with colour channels" if layer else "no channels R, G, B or Y, and several layers or none"
    )
    return PlateError(
        "plate.layer",
        f"the file has {what}",
        value=layer,
        frame=frame.frame,
        path=frame.path,
        remedy=hint + _remedy(frame),
    )


def _unknown(frame: PlateFrame, what: str, name: str, allowed: list[str]) -> PlateError:
    near = get_close_matches(name, allowed, n=1, cutoff=0.5)
    return PlateError(
        "plate.layer",
        f"the file has no {what} {name!r}",
        value=name,
        frame=frame.frame,
        path=frame.path,
        remedy=f"{f'Did you mean {near[0]!r}? ' if near else ''}There is: {', '.join(allowed)}.",
    )


def choose_channel(frame: PlateFrame, name: str) -> tuple[int, str]:
    """Part index and channel of an artist's matte: by its full name, else by colour name (`A`, `alpha`, `red`).

    A file with one channel answers any name of a colour. Raises PlateError `plate.matte`.
    """
    for index, part in enumerate(frame.parts):
        if name in part.channels:
            return index, name
    layer, _, last = name.rpartition(".")
    wanted = _COLOURS.get(last.lower(), last)
    for index, part in enumerate(frame.parts):
        channel = _layers(part).get(layer, {}).get(wanted)
        if channel:
            return index, channel
    if len(frame.parts) == 1 and len(frame.parts[0].channels) == 1 and not layer and wanted in "RGBA":
        return 0, next(iter(frame.parts[0].channels))
    everything = [channel for part in frame.parts for channel in part.channels]
    raise PlateError(
        "plate.matte",
        f"the matte has no channel {name!r}",
        value=name,
        frame=frame.frame,
        path=frame.path,
        remedy=f"There is: {', '.join(everything[:40])}. Choose with --mask-channel.",
    )
