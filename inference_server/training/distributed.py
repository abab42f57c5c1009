"""Several processes train one model: each works off its share of a step's micro-batches, gradients are summed.

Gradients are reduced between the backward pass and the optimiser step, not by hooks during it: with two optimisers,
phases that differ from step to step and several forward passes for each, that is what stays correct without
special cases. The price is that communication does not overlap with the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from inference_server.training.errors import TrainingError

BUCKET_ELEMENTS = 1 << 24
TIMEOUT = timedelta(hours=2)  # the others wait while the first process validates and writes

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a run; `size` 1 is a run by itself and needs no torch.distributed."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        return self.rank == 0

    def mine(self, items: Sequence[T]) -> Sequence[T]:
        """This process' share: every size-th, from its rank on."""
        return items[self.rank :: self.size]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process. Every process has to call this at the same place."""
        if self.size == 1:
            return flag
        value = torch.tensor([int(flag)], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def from_first(self, value: int) -> int:
        """The first process' number."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], device=self.device, dtype=torch.int64)
        dist.broadcast(tensor, 0)
        return int(tensor.item())

    def sum_(self, tensor: Tensor) -> Tensor:
        """The sum over processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def barrier(self) -> None:
        if self.size > 1:
            self.sum_(torch.zeros(1, device=self.device))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums gradients over processes. A parameter that no process touched keeps none."""
        if self.size == 1:
            return
        touched = torch.tensor([int(p.grad is not None) for p in parameters], device=self.device)
        dist.all_reduce(touched, op=dist.ReduceOp.MAX)
        gradients = []
        for parameter, flag in zip(parameters, touched.tolist(), strict=True):
            if flag:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            dist.all_reduce(flat)
            for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):  # type: ignore[no-untyped-call]
                gradient.copy_(part.view_as(gradient))

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Makes the tensors those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor.data, 0)


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        same = not bucket or tensor.dtype == bucket[0].dtype
        if bucket and (not same or sum(t.numel() for t in bucket) + tensor.numel() > BUCKET_ELEMENTS):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextmanager
def group_from_environment(device: str = "cpu") -> Iterator[Group]:
    """The group that torchrun's environment describes (gloo on the CPU, NCCL on CUDA), or a single process.

    Each process gets the CUDA device of its local rank.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group(device=torch.device(device))
        return
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise TrainingError(
            "training.group",
            f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set",
            remedy="Start the run through torchrun, or unset WORLD_SIZE.",
            value=missing,
        )
    own = torch.device(device)
    if own.type == "cuda":
        own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(own)
    dist.init_process_group("nccl" if own.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), own)
    finally:
        dist.destroy_process_group()
