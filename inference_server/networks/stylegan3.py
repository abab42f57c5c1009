"""StyleGAN3 generator, configurations R and T.

Decides how the alias-free generator (Karras et al. 2021, "Alias-Free Generative Adversarial Networks") is built
in plain torch operations, so that the published networks load with strict=True: the layer geometry (sampling rates,
cut-offs, sizes, names), the low-pass filters, the Fourier input with the user's transform, the modulated
convolutions and the filtered leaky ReLU.

Units: a rate is samples per picture width, a frequency is cycles per picture width; the picture is the unit square,
the margin lies outside it. Coordinates: x right, y down, origin in the picture's centre.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inference_server.networks.tensors import ShapeError, check_shape

FIRST_CUTOFF = 2.0
FIRST_STOPBAND = 2.0**2.1
LAST_STOPBAND_REL = 2.0**0.3
MARGIN = 10  # samples on each side, at every layer's own rate
TAPS = 6  # filter taps for each unit of the up- or down-sampling factor
OUTPUT_SCALE = 0.25
HIGH_RATE_ELEMENTS = 1 << 26  # the largest map held at the rate of the non-linearity: 256 MiB of float32


@dataclass(frozen=True)
class StyleGAN3Config:
    """What fixes names and shapes of a StyleGAN3 generator.

    `radial` is R's 2-D down filter, `kernel` 1 goes with R and 3 with T. `clamp` <= 0 means none.
    """

    resolution: int = 1024
    kernel: int = 1
    radial: bool = True
    channel_base: int = 65536
    channel_max: int = 1024
    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    mapping_layers: int = 2
    num_layers: int = 14
    clamp: float = 256.0

    def __post_init__(self) -> None:
        size = self.resolution
        if size < 16 or size & (size - 1):
            raise ValueError(f"StyleGAN3 resolution: expected a power of two from 16 on, got {size}")
        if self.kernel not in (1, 3):
            raise ValueError(f"StyleGAN3 kernel: expected 1 (R) or 3 (T), got {self.kernel}")
        if self.num_layers < 3:
            raise ValueError(f"StyleGAN3 layers before toRGB: expected 3 or more, got {self.num_layers}")

    @property
    def num_ws(self) -> int:
        """Rows of a W+ code: input block, layers, toRGB."""
        return self.num_layers + 2


def config_r(resolution: int = 1024) -> StyleGAN3Config:
    """Translation and rotation: 1x1 convolutions, radial filters, doubled channels."""
    return StyleGAN3Config(resolution, kernel=1, radial=True, channel_base=65536, channel_max=1024)


def config_t(resolution: int = 1024) -> StyleGAN3Config:
    """Translation: 3x3 convolutions, separable filters."""
    return StyleGAN3Config(resolution, kernel=3, radial=False, channel_base=32768, channel_max=512)


# ---------------------------------------------------------------------------------------------------- geometry


@dataclass(frozen=True)
class Band:
    """What one layer puts out: its rate, its band limits, its size and channels."""

    cutoff: float
    half_width: float  # of the transition band
    rate: int
    size: int
    channels: int


@dataclass(frozen=True)
class LayerSpec:
    """One layer between the band it reads and the band it writes. `pad` is (before, after), negative = crop."""

    name: str
    source: Band
    target: Band
    kernel: int
    is_rgb: bool
    up: int
    down: int
    up_taps: int
    down_taps: int
    pad: tuple[int, int]
    inner_rate: int  # the rate of the non-linearity
    radial_down: bool


def bands(config: StyleGAN3Config) -> list[Band]:
    """The band of every layer 0..num_layers: cut-off and stop-band grow geometrically up to the critical layers."""
    last_cutoff = config.resolution / 2
    last_stopband = last_cutoff * LAST_STOPBAND_REL
    result = []
    for i in range(config.num_layers + 1):
        e = min(i / (config.num_layers - 2), 1.0)
        cutoff = FIRST_CUTOFF * (last_cutoff / FIRST_CUTOFF) ** e
        stopband = FIRST_STOPBAND * (last_stopband / FIRST_STOPBAND) ** e
        # The small number keeps an exact power of two (256 px, layer 9) from being rounded up a whole octave.
        rate = 2 ** math.ceil(math.log2(min(2 * stopband, config.resolution)) - 1e-9)
        last_two = i >= config.num_layers - 1
        result.append(
            Band(
                cutoff=cutoff,
                half_width=max(stopband, rate / 2) - cutoff,
                rate=rate,
                size=config.resolution if last_two else rate + 2 * MARGIN,
                channels=3
                if i == config.num_layers
                else round(min(config.channel_base / 2 / cutoff, config.channel_max)),
            )
        )
    return result


def layer_specs(config: StyleGAN3Config) -> list[LayerSpec]:
    """All layers, toRGB last. Layer 0 reads the band that it writes; the others read the one before."""
    chain = bands(config)
    specs = []
    for i, target in enumerate(chain):
        source = chain[max(i - 1, 0)]
        is_rgb = i == config.num_layers
        inner = max(source.rate, target.rate) * (1 if is_rgb else 2)
        up, down = inner // source.rate, inner // target.rate
        kernel = 1 if is_rgb else config.kernel
        up_taps, down_taps = (1, 1) if is_rgb else (TAPS * up, TAPS * down)
        total = (target.size - 1) * down + 1 - (source.size + kernel - 1) * up + up_taps + down_taps - 2
        before = (total + up) // 2  # floor, also of a negative number
        specs.append(
            LayerSpec(
                name=f"L{i}_{target.size}_{target.channels}",
                source=source,
                target=target,
                kernel=kernel,
                is_rgb=is_rgb,
                up=up,
                down=down,
                up_taps=up_taps,
                down_taps=down_taps,
                pad=(0, 0) if is_rgb else (before, total - before),
                inner_rate=inner,
                radial_down=config.radial and i < config.num_layers - 2,
            )
        )
    return specs


def lowpass(taps: int, cutoff: float, half_width: float, rate: float, radial: bool = False) -> Tensor:
    """Kaiser-windowed low-pass of unit sum: the sinc, or in two dimensions the jinc times the window's product.

    Returns [taps] or, radial, [taps, taps], float32, symmetric. `taps` is even, so none sits in the centre.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * (2 * half_width) / (rate / 2) + 7.95
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    elif attenuation > 21:
        beta = 0.5842 * (attenuation - 21) ** 0.4 + 0.07886 * (attenuation - 21)
    else:
        beta = 0.0
    ramp = 2 * torch.arange(taps, dtype=torch.float64) / (taps - 1) - 1
    window = torch.special.i0(beta * (1 - ramp**2).clamp_min(0).sqrt()) / torch.special.i0(
        torch.tensor(beta, dtype=torch.float64)
    )
    m = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2) / rate  # positions in picture widths
    if radial:
        rho = torch.hypot(m[:, None], m[None, :])
        h = torch.special.bessel_j1(2 * math.pi * cutoff * rho) / (math.pi * rho) * window[:, None] * window
    else:
        h = torch.sinc(2 * cutoff * m) * window
    return cast(Tensor, h / h.sum()).float()


# ------------------------------------------------------------------------------------------------- operations


def filtered_lrelu(
    x: Tensor,  # [N, C, H, W]
    bias: Tensor,  # [C]
    up_filter: Tensor,  # [Ku]
    down_filter: Tensor,  # [Kd] or [Kd, Kd]
    up: int,
    down: int,
    pad: tuple[int, int],
    clamp: float,
) -> Tensor:
    """Bias, up-sample, leaky ReLU times sqrt(2), clamp, down-sample: [N, C, H', W'].

    Up-sampling puts up - 1 zeros after every sample, pads by `pad` and filters with gain `up` per axis; here it
    is the transposed convolution that computes the same. Everything is per channel, so channels are taken in groups
    that bound the memory at the high rate.
    """
    n, channels, height, width = x.shape
    x = x + bias.to(x.dtype)[None, :, None, None]
    height_out, width_out = (side * up + sum(pad) - len(up_filter) + 1 for side in (height, width))
    group = max(1, HIGH_RATE_ELEMENTS // (n * height_out * width_out))
    h = up_filter.to(x.dtype) * up
    g = down_filter.to(x.dtype)
    # Sample j after padding and filtering is sample j + taps - 1 - before of the full transposed convolution.
    start = len(up_filter) - 1 - pad[0]
    parts = []
    for first in range(0, channels, group):
        y = x[:, first : first + group]
        k = y.shape[1]
        # On the CPU a grouped convolution is several times faster than the same work as a batch of one channel.
        y = F.conv_transpose2d(y, h[None, None, None, :].repeat(k, 1, 1, 1), stride=(1, up), groups=k)
        y = F.pad(y, (-start, start + width_out - y.shape[3]))
        y = F.conv_transpose2d(y, h[None, None, :, None].repeat(k, 1, 1, 1), stride=(up, 1), groups=k)
        y = F.pad(y, (0, 0, -start, start + height_out - y.shape[2]))
        y = F.leaky_relu(y, 0.2) * math.sqrt(2)
        if clamp > 0:
            y = y.clamp(-clamp, clamp)
        if g.ndim == 2:
            y = F.conv2d(y, g[None, None].repeat(k, 1, 1, 1), stride=down, groups=k)
        else:
            y = F.conv2d(y, g[None, None, None, :].repeat(k, 1, 1, 1), stride=(1, down), groups=k)
            y = F.conv2d(y, g[None, None, :, None].repeat(k, 1, 1, 1), stride=(down, 1), groups=k)
        parts.append(y)
    return torch.cat(parts, dim=1)


def placement(angle: float = 0.0, tx: float = 0.0, ty: float = 0.0) -> Tensor:
    """The user transform [3, 3] that turns the content counter-clockwise by `angle` radians on screen and moves
    it by (tx, ty) picture widths, x right, y down. It is the inverse of the placement: it takes positions of the
    output to positions of the untransformed picture.
    """
    c, s = math.cos(angle), math.sin(angle)
    forward = torch.tensor([[c, s, tx], [-s, c, ty], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return cast(Tensor, torch.linalg.inv(forward)).float()


# ---------------------------------------------------------------------------------------------------- modules


class ScaledLinear(nn.Module):
    """A linear layer whose weight is stored with unit variance (times 1 / lr_multiplier)."""

    def __init__(self, inputs: int, outputs: int, lr_multiplier: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:  # [N, I] -> [N, O]
        return F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)


def _unit_rms(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class MappingNetwork(nn.Module):
    """z (and a class label) to the W+ code."""

    w_avg: Tensor

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        width = config.z_dim
        if config.c_dim > 0:
            self.embed = ScaledLinear(config.c_dim, config.w_dim)
            width += config.w_dim
        for i in range(config.mapping_layers):
            self.add_module(f"fc{i}", ScaledLinear(width, config.w_dim, lr_multiplier=0.01))
            width = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(
        self,
        z: Tensor,  # [N, z_dim]
        c: Tensor | None = None,  # [N, c_dim]
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Tensor:
        """W+ [N, num_ws, w_dim]; the first `truncation_cutoff` rows (default all) are pulled towards w_avg.

        `update_average` moves w_avg towards this batch (training only).
        """
        config = self.config
        check_shape("z", z, "N", config.z_dim)
        x = _unit_rms(z.to(self.w_avg.dtype))
        if config.c_dim > 0:
            if c is None:
                raise ShapeError(f"c: expected shape [{z.shape[0]}, {config.c_dim}], got none")
            check_shape("c", c, z.shape[0], config.c_dim)
            x = torch.cat([x, _unit_rms(self.embed(c.to(x.dtype)))], dim=1)
        for i in range(config.mapping_layers):
            x = F.leaky_relu(cast(ScaledLinear, self.get_submodule(f"fc{i}"))(x), 0.2) * math.sqrt(2)
        if update_average:
            self.w_avg.lerp_(x.detach().mean(dim=0), 0.002)
        w = x[:, None].repeat(1, config.num_ws, 1)
        if truncation_psi != 1:
            cutoff = config.num_ws if truncation_cutoff is None else truncation_cutoff
            w = torch.cat([self.w_avg.lerp(w[:, :cutoff], truncation_psi), w[:, cutoff:]], dim=1)
        return w


class FourierInput(nn.Module):
    """Sines over the plane, turned and moved by the code's first row and by the user's transform.

    A transform in a loaded state dict is where somebody last left it, not a weight: it is reset to identity
    (files written after per-picture transforms carry it as [B, 3, 3]).
    """

    transform: Tensor
    freqs: Tensor
    phases: Tensor

    def __init__(self, band: Band, w_dim: int) -> None:
        super().__init__()
        self.band = band
        channels = band.channels
        self.weight = nn.Parameter(torch.randn(channels, channels))
        self.affine = ScaledLinear(w_dim, 4)
        with torch.no_grad():
            self.affine.weight.zero_()
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
        angle = torch.rand(channels) * (2 * math.pi)
        radius = torch.rand(channels).sqrt() * band.cutoff  # uniform in the disc
        self.register_buffer("transform", torch.eye(3))
        self.register_buffer("freqs", torch.stack([angle.cos() * radius, angle.sin() * radius], dim=1))
        self.register_buffer("phases", torch.rand(channels) - 0.5)
        self.register_load_state_dict_pre_hook(_reset_transform)  # type: ignore[no-untyped-call]

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """w [N, w_dim], transform [3, 3] or [N, 3, 3] (default: the buffer) -> features [N, C, size, size]."""
        n, band = w.shape[0], self.band
        user = self.transform if transform is None else transform.to(w)
        check_shape("transform", user, *((3, 3) if user.ndim == 2 else (n, 3, 3)))
        t = self.affine(w)  # [N, 4]: cosine, sine, shift x, shift y
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        c, s, tx, ty = t.unbind(dim=1)
        zero, one = torch.zeros_like(c), torch.ones_like(c)
        rotate = torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=1).reshape(n, 3, 3)
        shift = torch.stack([one, zero, -tx, zero, one, -ty, zero, zero, one], dim=1).reshape(n, 3, 3)
        m = rotate @ shift @ user  # [N, 3, 3]
        freqs = self.freqs @ m[:, :2, :2]  # [N, C, 2]
        phases = self.phases + (self.freqs @ m[:, :2, 2:])[..., 0]  # [N, C]
        # Frequencies that a transform lifts out of the band fade instead of aliasing.
        fade = (1 - (freqs.norm(dim=2) - band.cutoff) / (band.rate / 2 - band.cutoff)).clamp(0, 1)  # [N, C]
        axis = (torch.arange(band.size, device=w.device, dtype=w.dtype) + 0.5 - band.size / 2) / band.rate
        turns = (
            freqs[:, :, 0, None, None] * axis[None, None, None, :]
            + freqs[:, :, 1, None, None] * axis[None, None, :, None]
            + phases[:, :, None, None]
        )  # [N, C, size, size]
        x = torch.sin(2 * math.pi * turns) * fade[:, :, None, None]
        return torch.einsum("oi,nihw->nohw", self.weight / math.sqrt(self.weight.shape[1]), x)


def _reset_transform(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    loaded = state.get(prefix + "transform")
    if loaded is not None:
        state[prefix + "transform"] = torch.eye(3, dtype=loaded.dtype, device=loaded.device)


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU; toRGB is the same without demodulation and filters."""

    magnitude_ema: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(self, spec: LayerSpec, w_dim: int, clamp: float) -> None:
        super().__init__()
        self.spec, self.clamp = spec, clamp
        source, target = spec.source, spec.target
        self.weight = nn.Parameter(torch.randn(target.channels, source.channels, spec.kernel, spec.kernel))
        self.bias = nn.Parameter(torch.zeros(target.channels))
        self.affine = ScaledLinear(w_dim, source.channels, bias=1.0)
        self.register_buffer("magnitude_ema", torch.ones(()))
        if not spec.is_rgb:
            up = lowpass(spec.up_taps, source.cutoff, source.half_width, spec.inner_rate)
            down = lowpass(spec.down_taps, target.cutoff, target.half_width, spec.inner_rate, spec.radial_down)
            self.register_buffer("up_filter", up)
            self.register_buffer("down_filter", down)

    def forward(
        self,
        x: Tensor,  # [N, I, H, H]
        w: Tensor,  # [N, w_dim]
        dtype: torch.dtype | None = None,
        magnitude_beta: float | None = None,
    ) -> Tensor:
        """[N, O, size, size] in `dtype` (default that of w), in which the convolution and the filters run.

        `magnitude_beta` updates the average of the input's mean square first (training only).
        """
        source = self.spec.source
        check_shape(f"{self.spec.name} input", x, w.shape[0], source.channels, source.size, source.size)
        if magnitude_beta is not None:
            square = x.detach().to(self.magnitude_ema.dtype).square().mean()
            self.magnitude_ema.lerp_(square, 1 - magnitude_beta)
        dtype = dtype or w.dtype
        gain = self.magnitude_ema.rsqrt()
        style = self.affine(w)  # [N, I]
        weight: Tensor = self.weight
        if self.spec.is_rgb:
            style = style / math.sqrt(weight.shape[1])
            after = None
        else:
            # Only the weight of epsilon depends on these two; they keep float16 in range. The style's is taken
            # per picture, so that a picture does not depend on its neighbours in the batch.
            weight = weight * weight.square().mean(dim=(1, 2, 3), keepdim=True).rsqrt()
            style = style * style.square().mean(dim=1, keepdim=True).rsqrt()
            energy = style.square() @ weight.square().sum(dim=(2, 3)).t()  # [N, O]
            after = (energy + 1e-8).rsqrt()
        if dtype == torch.float32 or dtype == torch.float64:
            # Modulating the map instead of the weights needs one set of weights for the whole batch.
            x = x.to(dtype) * (style * gain)[:, :, None, None]
            x = F.conv2d(x, weight.to(dtype), padding=self.spec.kernel - 1)
            if after is not None:
                x = x * after[:, :, None, None]
        else:
            # Short floats: the product of all factors is what has a harmless range.
            per_sample = weight[None] * (style * gain)[:, None, :, None, None]  # [N, O, I, k, k]
            if after is not None:
                per_sample = per_sample * after[:, :, None, None, None]
            n, _, height, width = x.shape
            x = F.conv2d(
                x.to(dtype).reshape(1, -1, height, width),
                per_sample.to(dtype).flatten(0, 1),
                padding=self.spec.kernel - 1,
                groups=n,
            )
            x = x.reshape(n, -1, x.shape[2], x.shape[3])
        if self.spec.is_rgb:
            x = x + self.bias.to(dtype)[None, :, None, None]
            return x.clamp(-self.clamp, self.clamp) if self.clamp > 0 else x
        spec = self.spec
        return filtered_lrelu(x, self.bias, self.up_filter, self.down_filter, spec.up, spec.down, spec.pad, self.clamp)


class SynthesisNetwork(nn.Module):
    """W+ code to picture."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        specs = layer_specs(config)
        self.input = FourierInput(specs[0].source, config.w_dim)
        self.layer_names = tuple(spec.name for spec in specs)
        for spec in specs:
            self.add_module(spec.name, SynthesisLayer(spec, config.w_dim, config.clamp))

    def layers(self) -> list[SynthesisLayer]:
        return [cast(SynthesisLayer, self.get_submodule(name)) for name in self.layer_names]

    def forward(
        self,
        ws: Tensor,  # [N, num_ws, w_dim]
        transform: Tensor | None = None,  # [3, 3] or [N, 3, 3]
        low_precision: torch.dtype | None = None,
        magnitude_beta: float | None = None,
        features: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Picture [N, 3, res, res], nominally [-1, 1], not clamped.

        Row 0 drives the input block, row i + 1 layer i. `low_precision` (float16 or bfloat16) is used by the layers
        whose rate is above res / 16; the picture is float32 in any case. `features`, when given, is filled
        with every block's output under "input" and the layers' names.
        """
        config = self.config
        check_shape("ws", ws, "N", config.num_ws, config.w_dim)
        ws = ws.to(self.input.weight.dtype)
        x = self.input(ws[:, 0], transform)
        if features is not None:
            features["input"] = x
        for name, layer, w in zip(self.layer_names, self.layers(), ws[:, 1:].unbind(dim=1), strict=True):
            low = low_precision if layer.spec.target.rate * 16 > config.resolution else None
            x = layer(x, w, low, magnitude_beta)
            if features is not None:
                features[name] = x
        return cast(Tensor, x * OUTPUT_SCALE).to(ws.dtype)


class StyleGAN3(nn.Module):
    """Mapping and synthesis under the published names `mapping.` and `synthesis.`."""

    def __init__(self, config: StyleGAN3Config) -> None:
        super().__init__()
        self.config = config
        self.synthesis = SynthesisNetwork(config)
        self.mapping = MappingNetwork(config)

    def forward(
        self,
        z: Tensor,  # [N, z_dim]
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        transform: Tensor | None = None,
    ) -> Tensor:  # [N, 3, res, res]
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        return cast(Tensor, self.synthesis(ws, transform))


def config_from_state(state: Mapping[str, Tensor]) -> StyleGAN3Config:
    """The configuration that a state dict was written by, read from its names and shapes.

    Sizes, channels and all filters are designed anew and compared with the stored ones; another geometry than the
    published one is refused with ValueError. The clamp cannot be seen in the weights; the published one is taken.
    """
    names: dict[int, tuple[str, int, int]] = {}
    for key in state:
        found = re.fullmatch(r"synthesis\.(L(\d+)_(\d+)_(\d+))\.weight", key)
        if found:
            names[int(found[2])] = (found[1], int(found[3]), int(found[4]))
    count = len(names) - 1
    if count < 3 or sorted(names) != list(range(count + 1)) or "mapping.fc0.weight" not in state:
        raise ValueError("not a StyleGAN3 generator: expected keys mapping.fc* and synthesis.L*_*_*")
    size = names[count][1]
    first = f"synthesis.{names[0][0]}"
    c_dim = state["mapping.embed.weight"].shape[1] if "mapping.embed.weight" in state else 0
    w_dim, inputs = state["mapping.fc0.weight"].shape
    config = StyleGAN3Config(
        resolution=size,
        kernel=state[f"{first}.weight"].shape[-1],
        radial=state[f"{first}.down_filter"].ndim == 2,
        channel_base=names[count - 1][2] * size,  # a critically sampled layer has base / size channels
        channel_max=names[0][2],
        z_dim=inputs - (w_dim if c_dim else 0),
        c_dim=c_dim,
        w_dim=w_dim,
        mapping_layers=sum(1 for key in state if re.fullmatch(r"mapping\.fc\d+\.weight", key)),
        num_layers=count,
    )
    for spec in layer_specs(config):
        stored = names[int(spec.name.split("_")[0][1:])][0]
        if spec.name != stored:
            raise ValueError(f"StyleGAN3 of another geometry: expected layer {spec.name}, got {stored}")
        if spec.is_rgb:
            continue
        designed = {
            "up_filter": lowpass(spec.up_taps, spec.source.cutoff, spec.source.half_width, spec.inner_rate),
            "down_filter": lowpass(
                spec.down_taps,
                spec.target.cutoff,
                spec.target.half_width,
                spec.inner_rate,
                spec.radial_down,
            ),
        }
        for kind, own in designed.items():
            given = state[f"synthesis.{spec.name}.{kind}"].float().cpu()
            if given.shape != own.shape or not torch.allclose(given, own, rtol=0, atol=1e-6):
                raise ValueError(f"StyleGAN3 of another geometry: {spec.name}.{kind} differs from the designed filter")
    return config
