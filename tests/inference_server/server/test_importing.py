"""Models that clients ask the server to import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host_bridge.client import Client
from host_bridge.errors import RequestError, ServerError
from tests.inference_server.server.conftest import Place, alive, wait_until

AGE = "direction-stit-age"


def ended(client: Client) -> dict[str, Any]:
    """The newest import, when it has ended."""
    deadline = time.monotonic() + 60
    while (newest := client.imports()[0])["state"] not in ("finished", "failed"):
        assert time.monotonic() < deadline, newest
        time.sleep(0.1)
    return newest


def choices(client: Client) -> list[str]:
    (copy,) = client.list_effects()
    return list(next(p for p in copy["params"] if p["name"] == "style")["choices"])


def present(client: Client) -> bool:
    return next(bool(card["present"]) for card in client.list_models() if card["id"] == AGE)


def test_a_model_is_imported_and_effects_offer_it(place: Place) -> None:
    folder, file = place.root / "models", place.root / "files" / "age.npy"
    file.parent.mkdir()
    np.save(file, np.ones((18, 512), np.float32))
    client = place.connect(models=[str(folder)], roots=[str(place.shot), str(place.out), str(file.parent)])
    assert not present(client)
    assert AGE not in choices(client)
    told = client.import_model(str(file), AGE)
    assert told.imports[0]["state"] in ("waiting", "running")
    refused = ended(client)
    assert (refused["state"], refused["error"]["code"]) == ("failed", "model.licence")
    assert "commercially" in refused["error"]["message"]
    assert not present(client)
    client.import_model(str(file), accept_licence=True)
    done = ended(client)
    assert (done["state"], done["model"], done["done"], done["error"]) == ("finished", AGE, 1.0, None)
    assert done["path"] == str(file)
    assert present(client)
    assert AGE in choices(client)
    assert sorted(p.suffix for p in folder.iterdir() if p.name != ".lock") == [".safetensors", ".toml"]
    assert client.submit(place.job(1, 1, params={"style": AGE})).accepted.result(5)
    for path, code in (("age.npy", "request.bad_value"), (str(place.root / "age.npy"), "server.not_allowed")):
        with pytest.raises((RequestError, ServerError)) as caught:
            client.import_model(path)
        assert caught.value.code == code
    assert len(client.imports()) == 2
    # a model that comes by another way is seen, too
    for stored in folder.glob(f"{AGE}*"):
        stored.unlink()
    assert AGE not in choices(client)


def children(pid: int) -> list[int]:
    """Processes of an import that `pid` has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"inference_server.models.child" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (OSError, IndexError, ValueError):
            continue  # no process, or one that has just ended
    return found


def test_an_import_dies_with_the_server_and_stores_nothing(place: Place) -> None:
    folder, file = place.root / "models", place.root / "huge.pt"
    file.touch()
    os.truncate(file, 200 << 30)  # a hole, which takes minutes to hash
    client = place.connect(models=[str(folder)])
    for _ in range(2):  # asked for twice, done once
        client.import_model(str(file), "direction-e4e-age")
    assert len(client.imports()) == 1
    server = place.server_pid
    wait_until(lambda: bool(children(server)))
    (child,) = children(server)
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not alive(child), 30)
    assert list(folder.glob("*.safetensors")) == []
