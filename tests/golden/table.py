"""`python -m tests.golden.table [--write]`: the table of networks in inference_server/networks/README.md.

Parameter counts come from the published configurations on the meta device, ratios from a run of the recorded cases.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from inference_server.networks.arcface import ArcFace
from inference_server.networks.bisenet import BiSeNet
from inference_server.networks.dualstylegan import DualStyleGAN
from inference_server.networks.hrnet import HRNet
from inference_server.networks.lpips import LPIPS
from inference_server.networks.psp import E4eEncoder, PspEncoder
from inference_server.networks.raft import BASIC, RAFT, SMALL
from inference_server.networks.restyle import ReStyleEncoder
from inference_server.networks.stylegan2 import Discriminator, Generator
from inference_server.networks.stylegan3 import StyleGAN3, config_r, config_t
from inference_server.networks.vgg import VGG19
from inference_server.networks.vtoonify import ConditionalDiscriminator, VToonify
from tests.golden.harness import DATA, run_folder

README = Path(__file__).parents[2] / "inference_server" / "networks" / "README.md"
BEGIN, END = "<!-- table: python -m tests.golden.table --write -->", "<!-- end of table -->"
HEAD = "| network | parameters | recorded cases | worst ratio | licence of published weights |\n|---|---|---|---|---|"

NVIDIA = "NVIDIA Source Code License, non-commercial"
FFHQ = f"{NVIDIA}; FFHQ CC BY-NC-SA 4.0"
S_LAB = "S-Lab License 1.0, non-commercial; the generator inside as StyleGAN2's"
ENCODER = "MIT; trained through a generator with StyleGAN2's terms"


@dataclass(frozen=True)
class Row:
    """A network in its published configuration, the manifests that pin it, and its weights' licence."""

    title: str
    build: Callable[[], nn.Module]
    recorded: tuple[str, ...]
    licence: str


ROWS = (
    Row("StyleGAN2 generator, 1024", lambda: Generator(1024), ("stylegan2_1024", "stylegan2_256"), FFHQ),
    Row("StyleGAN2 discriminator, 1024", lambda: Discriminator(1024), (), FFHQ),
    Row("StyleGAN3-R, 1024", lambda: StyleGAN3(config_r(1024)), ("stylegan3_r_256",), NVIDIA),
    Row("StyleGAN3-T, 1024", lambda: StyleGAN3(config_t(1024)), ("stylegan3_t_256",), NVIDIA),
    Row("DualStyleGAN, 1024", lambda: DualStyleGAN(1024), ("dualstylegan_1024",), S_LAB),
    Row("VToonify-D", lambda: VToonify("dualstylegan"), ("vtoonify_d",), S_LAB),
    Row("VToonify-D, read by inference", lambda: lean("dualstylegan"), (), S_LAB),
    Row("VToonify-T", lambda: VToonify("toonify"), ("vtoonify_t",), S_LAB),
    Row("VToonify-T, read by inference", lambda: lean("toonify"), (), S_LAB),
    Row("VToonify-D discriminator, 256, 317 styles", lambda: ConditionalDiscriminator(256, 317), (), "not published"),
    Row("pSp encoder", lambda: PspEncoder("w+"), ("psp_encoder",), ENCODER),
    Row("e4e encoder", lambda: E4eEncoder(), ("e4e_encoder",), ENCODER),
    Row("ReStyle e4e encoder, StyleGAN3", ReStyleEncoder, (), ENCODER),
    Row("BiSeNet, 19 classes", lambda: BiSeNet(), ("bisenet",), "MIT; CelebAMask-HQ non-commercial research"),
    Row("RAFT basic", lambda: RAFT(BASIC), ("raft_large",), "BSD-3-Clause"),
    Row("RAFT small", lambda: RAFT(SMALL), ("raft_small",), "BSD-3-Clause"),
    Row("HRNet-W18, 98 landmarks", lambda: HRNet(98), ("hrnet_w18_98",), "MIT"),
    Row("ArcFace IR-SE-50", lambda: ArcFace(), ("arcface_irse50",), "MIT; trained on research-only face data"),
    Row("LPIPS with VGG-16", lambda: LPIPS("vgg"), ("lpips_vgg",), "BSD-2-Clause; trunk BSD-3-Clause, ImageNet"),
    Row("LPIPS with AlexNet", lambda: LPIPS("alex"), ("lpips_alex",), "BSD-2-Clause; trunk BSD-3-Clause, ImageNet"),
    Row("VGG19 up to relu3_1", VGG19, (), "BSD-3-Clause, ImageNet"),
    Row("VToonify-D with pSp and BiSeNet, frame to picture", lambda: pipeline(), ("vtoonify_pipeline",), "theirs"),
    Row("parse smoothing", nn.Identity, ("parse_smoothing",), "no weights"),
)


def lean(backbone: str) -> VToonify:
    network = VToonify("dualstylegan" if backbone == "dualstylegan" else "toonify")
    network.drop_unread()
    return network


def pipeline() -> nn.Module:
    return nn.ModuleList([VToonify("dualstylegan"), PspEncoder("z+"), BiSeNet()])


def parameters(row: Row) -> int:
    """Distinct parameters of the published configuration; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in row.build().parameters())


def table(worst: Mapping[str, float]) -> str:
    """The table as Markdown; `worst` is the largest ratio of each recorded network."""
    lines = [HEAD]
    for row in ROWS:
        recorded = ", ".join(row.recorded) or "-"
        ratio = f"{max(worst[name] for name in row.recorded):.4f}" if row.recorded else "-"
        lines.append(f"| {row.title} | {parameters(row):,} | {recorded} | {ratio} | {row.licence} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden.table", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"replace the table in {README.name}")
    options = parser.parse_args(argv)
    worst: dict[str, float] = {}
    for row in run_folder(DATA):
        worst[row.network] = max(worst.get(row.network, 0.0), row.ratio if row.ratio is not None else float("inf"))
    text = table(worst)
    sys.stdout.write(f"{text}\n")
    if options.write:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")
    return 0 if all(ratio <= 1 for ratio in worst.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
