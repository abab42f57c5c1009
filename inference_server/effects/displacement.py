"""Smooth displacement fields that never fold, from moves of a few points.

Moves become a smooth *velocity* (compactly supported radial basis functions), and following it for one unit of
time gives the displacement: such a map is invertible whatever the moves (Arsigny et al. 2006, scaling and
squaring). Fields live on a coarse lattice in square pixels and are brought to plate pixels once, at the end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_STEPS = 6  # 2^6 steps of the integration

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Lattice:
    """A lattice over a crop of `height` x `width` plate pixels; cell centres at half, positions in square pixels.

    `aspect` is the pixel aspect, `unit` the eye distance in square pixels.
    """

    height: int
    width: int
    rows: int
    cols: int
    aspect: float
    unit: float
    device: torch.device

    @classmethod
    def over(
        cls, height: int, width: int, aspect: float, unit: float, cells_per_eye: float, device: torch.device
    ) -> Lattice:
        """The lattice for a crop with so many cells per eye distance, never finer than the plate's pixels."""
        cell = max(1.0, unit / cells_per_eye)
        rows = max(8, math.ceil(height / cell))
        cols = max(8, math.ceil(width * aspect / cell))
        return cls(height, width, rows, cols, aspect, unit, device)

    def with_cells(self, cells_per_eye: float) -> Lattice:
        """This lattice, or a coarser one over the same crop."""
        other = Lattice.over(self.height, self.width, self.aspect, self.unit, cells_per_eye, self.device)
        return other if other.rows < self.rows else self

    @property
    def step(self) -> tuple[float, float]:
        """Size of a cell (x, y) in square pixels."""
        return self.width * self.aspect / self.cols, self.height / self.rows

    def axes(self) -> tuple[Tensor, Tensor]:
        """x [cols] and y [rows] of the cells' centres in square pixels of the crop."""
        sx, sy = self.step
        x = (torch.arange(self.cols, device=self.device, dtype=torch.float32) + 0.5) * sx
        y = (torch.arange(self.rows, device=self.device, dtype=torch.float32) + 0.5) * sy
        return x, y

    def zeros(self) -> Tensor:
        return torch.zeros(2, self.rows, self.cols, device=self.device)

    def border_window(self, margin: float) -> Tensor:
        """[rows, cols] 0 on the crop's edge, 1 from `margin` (square pixels) inward, smooth."""
        x, y = self.axes()
        wide, high = self.width * self.aspect, float(self.height)
        edge_x = smoothstep(torch.minimum(x, wide - x) / margin - 0.25)
        edge_y = smoothstep(torch.minimum(y, high - y) / margin - 0.25)
        return edge_y[:, None] * edge_x[None, :]

    def box(self, low: Points, high: Points) -> tuple[slice, slice]:
        """Rows and columns whose cells lie in the rectangle `low` .. `high` ([2] each, x y, square pixels)."""
        sx, sy = self.step
        c0, c1 = math.floor(float(low[0]) / sx), math.ceil(float(high[0]) / sx)
        r0, r1 = math.floor(float(low[1]) / sy), math.ceil(float(high[1]) / sy)
        clamp = (max(0, min(r0, self.rows)), max(0, min(r1, self.rows)))
        clamp_c = (max(0, min(c0, self.cols)), max(0, min(c1, self.cols)))
        return slice(*clamp), slice(*clamp_c)

    def to_plate(self, field: Tensor, smooth: bool = True) -> Tensor:
        """A displacement [2, rows, cols] in square pixels to [2, height, width] in plate pixels.

        `smooth` False keeps a field that jumps from ringing.
        """
        scaled = field / field.new_tensor([self.aspect, 1.0])[:, None, None]
        size = (self.height, self.width)
        if size == (self.rows, self.cols):
            return scaled
        if smooth and self.rows * 6 < self.height:  # fine enough that straight pieces do not show
            between = (self.rows * 4, self.cols * 4)
            scaled = functional.interpolate(scaled[None], size=between, mode="bicubic", align_corners=False)[0]
            smooth = False
        mode = "bicubic" if smooth else "bilinear"
        return functional.interpolate(scaled[None], size=size, mode=mode, align_corners=False)[0]

    def scalar_to_plate(self, field: Tensor) -> Tensor:
        """A scalar [rows, cols] in 0..1 to [height, width]."""
        size = (self.height, self.width)
        return functional.interpolate(field[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def smoothstep(x: Tensor) -> Tensor:
    """3 x^2 - 2 x^3 of x clamped to 0..1."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def velocity(lattice: Lattice, at: Points, moves: Points, reach: float, ridge: float = 1e-3) -> Tensor:
    """Interpolate `moves` [K, 2] given at `at` [K, 2] (square crop pixels) by Wendland's C2 function of radius `reach`.

    A move of 0 pins its point; a larger `ridge` follows the moves less closely and more smoothly. Returns
    [2, rows, cols]; 0 farther than `reach` from every point.
    """
    field = lattice.zeros()
    if not moves.any():
        return field
    distance = np.linalg.norm(at[:, None] - at[None], axis=2) / reach  # [K, K]
    weights = np.linalg.solve(_wendland_np(distance) + ridge * np.eye(len(at)), moves)  # [K, 2]
    strong = np.abs(weights).max(axis=1) > 1e-6 * np.abs(weights).max()
    rows, cols = lattice.box(at[strong].min(axis=0) - reach, at[strong].max(axis=0) + reach)
    if rows.start >= rows.stop or cols.start >= cols.stop:
        return field
    x, y = lattice.axes()
    points = torch.as_tensor(at[strong], dtype=torch.float32, device=lattice.device)  # [K, 2]
    coefficients = torch.as_tensor(weights[strong].T.copy(), dtype=torch.float32, device=lattice.device)  # [2, K]
    dx = ((x[cols][None] - points[:, :1]) / reach).square()  # [K, c]
    dy = ((y[rows][None] - points[:, 1:]) / reach).square()  # [K, r]
    radius = (dy[:, :, None] + dx[:, None, :]).clamp_max_(1.0).sqrt_()  # [K, r, c]
    basis = (1 - radius).square_().square_().mul_(radius.mul_(4).add_(1))
    shape = basis.shape[1:]
    field[:, rows, cols] = (coefficients @ basis.reshape(len(points), -1)).reshape(2, *shape)
    return field


def support(lattice: Lattice, speed: Tensor) -> Tensor:
    """Where a velocity at full strength matters: [rows, cols], 0 under 0.2 % of an eye distance, 1 above 1 %.

    A velocity times this is exactly 0 outside, so a matte made of it covers all that moves.
    """
    length = speed.square().sum(dim=0).sqrt() / lattice.unit
    return smoothstep((length - 0.002) / 0.008)


def follow(lattice: Lattice, speed: Tensor) -> Tensor:
    """Displacement [2, rows, cols] of points that follow `speed` [2, rows, cols] for one unit of time."""
    flow = speed / float(2**_STEPS)
    for _ in range(_STEPS):
        flow = compose(lattice, flow, flow)
    return flow


def compose(lattice: Lattice, first: Tensor, then: Tensor) -> Tensor:
    """p -> first(p) + then(p + first(p)): go by `first`, then by `then`; all [2, rows, cols] in square pixels."""
    return first + sample(lattice, then, first)


def sample(lattice: Lattice, field: Tensor, offset: Tensor) -> Tensor:
    """`field` [C, rows, cols] read at each cell's centre plus `offset` [2, rows, cols] (square pixels)."""
    sx, sy = lattice.step
    cols = torch.arange(lattice.cols, device=field.device, dtype=field.dtype)
    rows = torch.arange(lattice.rows, device=field.device, dtype=field.dtype)
    gx = (cols[None, :] + offset[0] / sx + 0.5) * (2.0 / lattice.cols) - 1.0
    gy = (rows[:, None] + offset[1] / sy + 0.5) * (2.0 / lattice.rows) - 1.0
    grid = torch.stack([gx, gy], dim=-1)[None]
    read = functional.grid_sample(field[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return torch.where((offset == 0).all(dim=0), field, read)  # what does not move keeps its bits


def carry(x: Tensor, warp: Tensor) -> Tensor:
    """`x` [C, h, w] read at p + warp(p), bilinear; warp [2, h, w] in its pixels. For mattes and gains; the plate
    itself is moved by `plates.warp`.
    """
    _, h, w = x.shape
    cols = torch.arange(w, device=x.device, dtype=x.dtype)
    rows = torch.arange(h, device=x.device, dtype=x.dtype)
    gx = (cols[None, :] + warp[0] + 0.5) * (2.0 / w) - 1.0
    gy = (rows[:, None] + warp[1] + 0.5) * (2.0 / h) - 1.0
    grid = torch.stack([gx, gy], dim=-1)[None]
    read = functional.grid_sample(x[None], grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
    return torch.where((warp == 0).all(dim=0), x, read)


def sample_at(lattice: Lattice, field: Tensor, points: Points) -> Points:
    """`field` [C, rows, cols] read at points [N, 2] (square crop pixels); [N, C]."""
    sx, sy = lattice.step
    normalised = points / (np.array([sx * lattice.cols, sy * lattice.rows])) * 2.0 - 1.0
    grid = torch.as_tensor(normalised, dtype=field.dtype, device=field.device)[None, None]
    read = functional.grid_sample(field[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return np.asarray(read[0, :, 0].T.cpu().numpy(), np.float64)


def _wendland_np(r: Points) -> Points:
    left = np.clip(1.0 - r, 0.0, None)
    return np.asarray(left**4 * (4.0 * r + 1.0))
