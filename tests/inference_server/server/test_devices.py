"""What `auto` stands for, and what artists read when a worker cannot open its pipeline."""

from __future__ import annotations

import pytest

from host_bridge.client import JobHandle
from host_bridge.errors import ServerError
from inference_server import devices
from tests.inference_server.server.conftest import Place


@pytest.mark.parametrize(
    ("asked", "gpus", "settled"),
    [
        (("auto",), 0, ("cpu",)),
        (("auto",), 2, ("cuda:0", "cuda:1")),
        (("cuda:1", "auto"), 2, ("cuda:1", "cuda:0")),
        (("cpu", "auto"), 0, ("cpu",)),
        (("mps",), 0, ("mps",)),
    ],
)
def test_auto_is_every_gpu_or_the_cpu(
    monkeypatch: pytest.MonkeyPatch, asked: tuple[str, ...], gpus: int, settled: tuple[str, ...]
) -> None:
    monkeypatch.setattr(devices, "gpu_count", lambda: gpus)
    assert devices.settle(asked) == settled


def test_gpus_are_counted_as_torch_counts_them() -> None:
    import torch

    assert devices.torch_has_cuda() == (torch.version.cuda is not None)
    assert devices.gpu_count() == (torch.cuda.device_count() if torch.cuda.is_available() else 0)


def test_a_server_started_for_auto_works(place: Place) -> None:
    client = place.connect(devices=["auto"])
    assert client.submit(place.job(1, 2)).wait(20).state == "finished"
    assert "auto" not in [d.device for d in client.ping().devices]


def test_a_pipeline_that_cannot_be_opened_refuses_jobs_in_one_line(place: Place) -> None:
    client = place.connect(runner="tests.inference_server.server.test_devices:open_nothing")
    handle = client.submit(place.job(1, 2))
    with pytest.raises(ServerError, match="no such toy") as caught:  # accepted before the worker gave up, or refused
        _wait(handle)
    assert "\n" not in caught.value.message


def _wait(handle: JobHandle) -> None:
    error = handle.wait(20).error
    if error is not None:
        raise error


def open_nothing(device: str, config: object) -> None:
    """A pipeline whose opening meets an error nobody foresaw."""
    raise ValueError("no such toy")
