"""What lies between two frames of a shot: codes, squares and offsets, interpolated linearly (StylePortraitVideo)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference_server.effects.base import ShotData, Times
from inference_server.effects.style_portrait.material import offsets_in
from inference_server.effects.style_portrait.placing import relative

_MIXED = ("aligned", "view", "points", "codes")


def retimed(shot: ShotData, times: Times) -> ShotData:
    """The data at those times in the place of the shot's frames; times between which the face is not are left out."""
    known = {int(frame): i for i, frame in enumerate(shot.arrays["frames"])}
    there = {f: ends for f, ends in times.items() if ends[0] in known and ends[1] in known}
    frames = sorted(there)
    earlier, later = [known[there[f][0]] for f in frames], [known[there[f][1]] for f in frames]
    share = np.array([there[f][2] for f in frames])

    def mixed(array: NDArray[Any]) -> NDArray[Any]:
        t = share.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)
        return np.asarray(array[earlier] * (1 - t) + array[later] * t, array.dtype)

    arrays = {**shot.arrays, "frames": np.array(frames, np.int64)}
    arrays |= {name: mixed(shot.arrays[name]) for name in _MIXED}
    if "user" in arrays:
        pairs = zip(arrays["aligned"], arrays["view"], strict=True)
        arrays["user"] = np.stack([relative(aligned, view) for aligned, view in pairs])
    offsets = offsets_in(shot, *shot.arrays["codes"].shape[1:])
    if offsets is not None:
        arrays["offsets"] = mixed(offsets)
    return replace(shot, arrays=arrays)
