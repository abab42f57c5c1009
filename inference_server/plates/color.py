"""Colour: from a plate's OCIO colourspace to what effects see, and back.

Three spaces. *Plate*: the file's own colourspace, named in an OCIO config. *Scene*: scene-linear with Rec.709
primaries, unbounded; reached through the config's interchange roles, so the config needs no space of that name.
*Picture*: scene times 2^exposure, display-encoded with the sRGB curve and clipped to 0..1. The exposure is fixed for
a shot, never chosen per frame.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import PyOpenColorIO as ocio
from numpy.typing import NDArray

from host_bridge.errors import ColorError, unknown_name

if TYPE_CHECKING:  # what a config offers is told without loading torch
    from torch import Tensor

DEFAULT_CONFIG = "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3"
_SCENE_SPACE = "Linear Rec.709 (sRGB)"  # of DEFAULT_CONFIG
LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec.709 weights


@dataclass(frozen=True)
class ViewerTransform:
    """How a preview is baked: an OCIO display and view ("" = plain sRGB), exposure in stops, gamma."""

    display: str = ""
    view: str = ""
    exposure: float = 0.0
    gamma: float = 1.0


class ColorConfig:
    """An OCIO config: from `path`, else $OCIO, else the built-in ACES CG config.

    Raises ColorError `color.config` when it cannot be read.
    """

    def __init__(self, path: str = "") -> None:
        self.source = path or os.environ.get("OCIO", "") or DEFAULT_CONFIG
        try:
            self._config = ocio.Config.CreateFromFile(self.source)
            self._config.validate()
        except (ocio.Exception, ocio.ExceptionMissingFile) as error:
            raise ColorError(
                "color.config",
                f"the OCIO config cannot be read: {error}",
                value=self.source,
                path=self.source,
                remedy="Give a valid config with --ocio or $OCIO, or neither for the built-in ACES config.",
            ) from error

    @cached_property
    def hash(self) -> str:
        """16 hex digits over the config's text and the names and sizes of the files on its search paths."""
        digest = hashlib.sha256(self._config.serialize().encode())
        root = os.path.dirname(os.path.abspath(self.source)) if os.path.isfile(self.source) else ""
        for folder in self._config.getSearchPaths() if root else ():
            where = os.path.join(root, folder)
            for name in sorted(os.listdir(where)) if os.path.isdir(where) else ():
                digest.update(f"{folder}/{name}:{os.path.getsize(os.path.join(where, name))}\n".encode())
        return digest.hexdigest()[:16]

    def spaces(self) -> list[str]:
        """Names of all active colourspaces, in the config's order."""
        return list(self._config.getColorSpaceNames())

    def roles(self) -> dict[str, str]:
        """Colourspace by role."""
        return dict(self._config.getRoles())

    def displays(self) -> dict[str, list[str]]:
        """Views by display."""
        return {d: list(self._config.getViews(d)) for d in self._config.getDisplays()}

    def resolve(self, name: str) -> str:
        """The canonical name of a colourspace, alias or role; "" is the scene_linear role.

        Raises ColorError `color.unknown_space`, naming the nearest, and for data spaces, which have no colour.
        """
        space = self._config.getColorSpace(name or "scene_linear")
        if space is None:
            roles = [r for r, _ in self._config.getRoles()]
            raise self._unknown(name or "scene_linear", self.spaces() + roles)
        if space.isData():
            raise ColorError(
                "color.unknown_space",
                f"{space.getName()} holds data, not colour",
                value=name,
                remedy="Name the colourspace the plate was written in with --colorspace.",
            )
        return str(space.getName())

    def _unknown(self, name: str, allowed: list[str]) -> ColorError:
        """Names and roles are listed; the nearest may also be one of the many aliases."""
        aliases = [a for space in self._config.getColorSpaces() for a in space.getAliases()]
        near = get_close_matches(name, allowed + aliases, n=1, cutoff=0.6)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        return ColorError(
            "color.unknown_space",
            f"unknown colourspace {name!r}",
            value=name,
            remedy=f"{hint}Allowed: {', '.join(allowed)}; and their aliases.",
        )

    def transform(self, space: str) -> PlateColor:
        """The way from colourspace `space` ("" = scene_linear) to scene and back."""
        return PlateColor(self._config, self.resolve(space))

    def check_hash(self, expected: str) -> None:
        """Raise ColorError `color.config_mismatch` unless `expected` is empty or this config's hash."""
        if expected and expected != self.hash:
            raise ColorError(
                "color.config_mismatch",
                f"this server's OCIO config ({self.source}, {self.hash}) is not the client's ({expected})",
                value=expected,
                remedy="Point both at the same config with --ocio or $OCIO.",
            )


class PlateColor:
    """Conversions between one plate colourspace and scene. Thread-safe."""

    def __init__(self, config: Any, space: str) -> None:
        self.space = space
        self._config = config
        reference = ocio.Config.CreateFromFile(DEFAULT_CONFIG)
        try:
            forth = ocio.Config.GetProcessorFromConfigs(config, space, reference, _SCENE_SPACE)
            back = ocio.Config.GetProcessorFromConfigs(reference, _SCENE_SPACE, config, space)
        except ocio.Exception as error:
            raise ColorError(
                "color.config",
                f"no way from {space} to linear Rec.709: {error}",
                value=space,
                remedy="The config needs the role aces_interchange (or cie_xyz_d65_interchange).",
            ) from error
        # Lossless: OCIO's default approximates powers to 3e-4, which shows as colour shift in a delta.
        lossless = ocio.OPTIMIZATION_LOSSLESS
        self._forth, self._back = (p.getOptimizedCPUProcessor(lossless) for p in (forth, back))
        self.linear = bool(config.isColorSpaceLinear(space, ocio.REFERENCE_SPACE_SCENE))

    def to_scene(self, plate: NDArray[np.float32]) -> NDArray[np.float32]:
        """[H, W, 3] plate values (unpremultiplied, finite) to scene-linear Rec.709; a new array."""
        return self._apply(self._forth, plate)

    def from_scene(self, scene: NDArray[np.float32]) -> NDArray[np.float32]:
        """[H, W, 3] scene-linear Rec.709 to plate values; a new array."""
        return self._apply(self._back, scene)

    def bake(self, scene: NDArray[np.float32], viewer: ViewerTransform) -> NDArray[np.uint8]:
        """[H, W, 3] scene-linear Rec.709 to 8-bit display code values for a viewer."""
        exposed = scene * np.float32(2.0**viewer.exposure)
        if viewer.display or viewer.view:
            displays = {d: list(self._config.getViews(d)) for d in self._config.getDisplays()}
            display = viewer.display or self._config.getDefaultDisplay()
            if display not in displays:
                raise unknown_name("color.unknown_space", "display", display, list(displays))
            view = viewer.view or self._config.getDefaultView(display)
            if view not in displays[display]:
                raise unknown_name("color.unknown_space", f"view of {display}", view, displays[display])
            transform = ocio.DisplayViewTransform(src=self.space, display=display, view=view)
            coded = self._apply(self._config.getProcessor(transform).getDefaultCPUProcessor(), self.from_scene(exposed))
        else:
            import torch

            coded = srgb_encode(torch.from_numpy(exposed).clamp(0, 1)).numpy()
        with np.errstate(invalid="ignore"):
            shown = np.nan_to_num(coded, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1) ** np.float32(1 / viewer.gamma)
        return np.asarray(np.rint(shown * 255), dtype=np.uint8)

    @staticmethod
    def _apply(processor: Any, values: NDArray[np.float32]) -> NDArray[np.float32]:
        out = np.array(values, dtype=np.float32, order="C")
        if out.size and not processor.isNoOp():
            processor.apply(ocio.PackedImageDesc(out, out.shape[1], out.shape[0], 3))
        return out


def srgb_encode(linear: Tensor) -> Tensor:
    """IEC 61966-2-1 encoding of values in 0..1, any shape."""
    return (linear * 12.92).where(linear <= 0.0031308, 1.055 * linear.clamp_min(1e-8) ** (1 / 2.4) - 0.055)


def srgb_decode(coded: Tensor) -> Tensor:
    """Inverse of `srgb_encode`."""
    return (coded / 12.92).where(coded <= 0.04045, ((coded.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def to_picture(scene: Tensor, exposure: float) -> Tensor:
    """Scene-linear of any shape to display-encoded sRGB 0..1 after the work exposure (stops)."""
    return srgb_encode((scene * 2.0**exposure).clamp(0, 1))


def from_picture(picture: Tensor, exposure: float) -> Tensor:
    """Display-encoded sRGB 0..1 back to scene-linear; values the picture could not hold are gone."""
    return srgb_decode(picture) * float(2.0**-exposure)


def auto_exposure(luminances: list[float]) -> float:
    """The work exposure in stops for a shot, from the median scene-linear face luminance of its frames.

    Brings the median of the frames to 0.18, in eighths of a stop, within 8 stops; 0 where nothing is known.
    """
    known = [v for v in luminances if v > 0 and np.isfinite(v)]
    if not known:
        return 0.0
    stops = float(np.log2(0.18 / float(np.median(known))))
    return float(np.clip(np.round(stops * 8) / 8, -8, 8))
