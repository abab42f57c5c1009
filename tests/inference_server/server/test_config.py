from __future__ import annotations

import os
from pathlib import Path

import pytest

from host_bridge.errors import FaceplateError, ServerError
from inference_server.config import ServerConfig, config_from_json, load_config
from inference_server.supervisor import place


def test_file_then_environment_then_overrides(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('queue_length = 5\nthreads = 2\nmemory_gb = 4\npath_maps = [["Z:/", "/mnt/z"]]\n')
    environ = {
        "FACEPLATE_CONFIG": str(tmp_path),
        "FACEPLATE_THREADS": "3",
        "FACEPLATE_DEVICES": "cuda:0,cuda:1",
        "FACEPLATE_ROOTS": os.pathsep.join(["/a", "/b"]),
    }
    config = load_config({"queue_length": 9, "ocio": None}, environ=environ)
    assert (config.queue_length, config.threads, config.memory_gb) == (9, 3, 4.0)
    assert config.devices == ("cuda:0", "cuda:1")
    assert config.roots == ("/a", "/b")
    assert config.path_maps == (("Z:/", "/mnt/z"),)
    assert config_from_json(config.to_json()) == config


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_config(environ={"FACEPLATE_CONFIG": str(tmp_path)}) == ServerConfig()


def test_a_private_server_shares_the_users_shot_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEPLATE_STATE", "/own")
    private = ServerConfig(state="/tmp/task/state", private=True)
    assert (private.state_path, private.shots_path) == (Path("/tmp/task/state"), Path("/own/shots"))
    assert ServerConfig(private=True, shots="/shared").shots_path == Path("/shared")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"memory_gib": 3}, "memory_gb"),
        ({"queue_length": "many"}, "queue_length"),
        ({"queue_length": True}, "queue_length"),
        ({"queue_length": 0}, "queue_length"),
        ({"memory_gb": float("nan")}, "memory_gb"),
        ({"devices": ["gpu"]}, "gpu"),
        ({"devices": ["cpu", "cpu"]}, "devices"),
        ({"devices": []}, "devices"),
        ({"roots": ["relative"]}, "roots"),
        ({"state": "relative"}, "state"),
        ({"path_maps": [["a"]]}, "path_maps"),
        ({"precision": "half"}, "precision"),
        ({"bind": "localhost"}, "bind"),
        ({"bind": "tcp://0.0.0.0:5555"}, "certificates"),
        ({"bind": "tcp://0.0.0.0:5555", "certificates": "/c"}, "roots"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], named: str) -> None:
    with pytest.raises(FaceplateError) as caught:
        config_from_json(values)
    assert caught.value.code == "server.config"
    assert named in str(caught.value)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("queue_length = ")
    with pytest.raises(ServerError, match=r"server\.toml"):
        load_config(path=file)
    with pytest.raises(ServerError, match=r"no\.toml"):
        load_config(path=tmp_path / "no.toml")


def test_each_worker_sees_its_own_gpu_counted_in_cuda_visible_devices() -> None:
    free = place(("cuda:0", "cuda:1"), {"A": "b"})
    assert [(n, d, e["CUDA_VISIBLE_DEVICES"]) for n, d, e in free] == [
        ("cuda:0", "cuda:0", "0"),
        ("cuda:1", "cuda:0", "1"),
    ]
    chosen = place(("cuda:1", "cpu"), {"CUDA_VISIBLE_DEVICES": "GPU-a, GPU-b"})
    assert chosen[0][2]["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    assert chosen[1][2]["CUDA_VISIBLE_DEVICES"] == ""
    with pytest.raises(ServerError, match="cuda:2"):
        place(("cuda:2",), {"CUDA_VISIBLE_DEVICES": "4,5"})
    assert place(("auto",), {"CUDA_VISIBLE_DEVICES": "3"})[0][2]["CUDA_VISIBLE_DEVICES"] == "3"
