"""Files made to run code or exhaust memory. Every payload is shown to work on Python's own reader first."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from host_bridge.errors import ModelError
from inference_server.models.cards import Card
from inference_server.models.containers import read_container
from inference_server.models.importer import identify, import_file
from inference_server.models.pickles import MalformedPickle, RefusedGlobal, load_records, scan
from inference_server.models.store import ModelStore
from tests.inference_server.models.conftest import TINY_STYLEGAN2, leftovers, official_modules, part

Cards = Callable[..., Card]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


class Restored:
    """Pickles as an object whose state is restored by a call: the payload hides behind BUILD."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, (print,), {"payload": Call(os.system, f"touch {self.marker}")}


PAYLOADS: dict[str, Callable[[Path], Any]] = {
    "os.system": lambda marker: Call(os.system, f"touch {marker}"),
    "builtins.eval": lambda marker: Call(eval, f"open({str(marker)!r}, 'w').close()"),
    "builtins.exec": lambda marker: Call(exec, f"open({str(marker)!r}, 'w').close()"),
    "nested": lambda marker: {"g_ema": {"a": [1, (2, Call(os.system, f"touch {marker}"))]}},
    "key": lambda marker: {Call(os.system, f"touch {marker}"): 1},
    "os.mkdir": lambda marker: Call(os.mkdir, str(marker)),
    "state": Restored,
}
REFUSED = r"posix\.system|nt\.system|builtins\.eval|__builtin__\.eval|builtins\.exec|__builtin__\.exec|\.mkdir|\.Call"


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it_ran"


def works(payload: bytes, marker: Path) -> None:
    """The control: Python's own unpickler does run the payload."""
    pickle.loads(payload)
    assert marker.exists(), "this payload does nothing, so refusing it proves nothing"
    marker.rmdir() if marker.is_dir() else marker.unlink()


def refused(path: Path, store: ModelStore, card: Card, marker: Path, pattern: str = REFUSED) -> None:
    with pytest.raises(ModelError, match=pattern) as caught:
        import_file(path, store, card)
    assert caught.value.code == "model.unsafe"
    assert "nothing of it was run" in str(caught.value)
    assert not marker.exists()
    assert leftovers(store) == []


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("legacy", [False, True])
def test_torch_file_runs_nothing(
    tmp_path: Path, store: ModelStore, card: Cards, marker: Path, name: str, legacy: bool
) -> None:
    evil = PAYLOADS[name](marker)
    works(pickle.dumps(evil, 2), marker)
    path = tmp_path / "tiny.pt"
    torch.save({"g_ema": {"w": torch.ones(2)}, "args": evil}, path, _use_new_zipfile_serialization=not legacy)
    marker.unlink(missing_ok=True)
    refused(path, store, card('objects = ["argparse.Namespace"]\n' + part("stylegan2", TINY_STYLEGAN2)), marker)
    with pytest.raises(ModelError):
        identify(path)
    assert not marker.exists()


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_style_codes_file_runs_nothing(
    tmp_path: Path, store: ModelStore, card: Cards, marker: Path, name: str, protocol: int
) -> None:
    evil = PAYLOADS[name](marker)
    works(pickle.dumps(evil, protocol), marker)
    array = np.empty((), dtype=object)
    array[()] = {"a.jpg": evil}
    path = tmp_path / "codes.npy"
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})  # type: ignore[no-untyped-call]
        pickle.dump(array, stream, protocol=protocol)
    refused(path, store, card('container = "npy-dict"\nstyle_codes = { shape = [1, 2, 2] }'), marker)


@pytest.mark.parametrize("name", PAYLOADS)
def test_nvidia_pickle_runs_nothing(tmp_path: Path, store: ModelStore, card: Cards, marker: Path, name: str) -> None:
    evil = PAYLOADS[name](marker)
    works(pickle.dumps(evil), marker)
    path = tmp_path / "g.pkl"
    with official_modules():
        path.write_bytes(pickle.dumps({"G_ema": {}, "D": evil}))
    text = 'container = "nvidia-pickle"\n' + part("stylegan2", TINY_STYLEGAN2, root="G_ema", convert="stylegan2-ada")
    refused(path, store, card(text), marker)


def test_payload_inside_the_bytes_of_an_nvidia_tensor(
    tmp_path: Path, store: ModelStore, card: Cards, marker: Path
) -> None:
    stream = io.BytesIO()
    torch.save(PAYLOADS["os.system"](marker), stream, _use_new_zipfile_serialization=False)
    hidden = Call(
        torch._utils._rebuild_tensor_v2, Call(torch.storage._load_from_bytes, stream.getvalue()), 0, (1,), (1,)
    )
    state = {"_parameters": {"w": hidden}, "_buffers": {}, "_modules": {}}
    with official_modules():
        from tests.inference_server.models.conftest import Persistent

        (tmp_path / "g.pkl").write_bytes(pickle.dumps({"G_ema": Persistent("G", state)}))
    text = 'container = "nvidia-pickle"\n' + part("stylegan2", TINY_STYLEGAN2, root="G_ema", convert="stylegan2-ada")
    refused(tmp_path / "g.pkl", store, card(text), marker)


def test_payload_in_a_second_pickle_of_the_archive(
    tmp_path: Path, store: ModelStore, card: Cards, marker: Path
) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "tiny.pt")
    with zipfile.ZipFile(tmp_path / "tiny.pt", "a") as archive:
        archive.writestr("other/data.pkl", pickle.dumps(PAYLOADS["os.system"](marker)))
    refused(tmp_path / "tiny.pt", store, card(part("stylegan2", TINY_STYLEGAN2)), marker)
    torch.save({"w": torch.ones(2)}, tmp_path / "more.pt")
    with zipfile.ZipFile(tmp_path / "more.pt", "a") as archive:
        archive.writestr("more/extra.pkl", b"\x80\x02}.")
    refused(tmp_path / "more.pt", store, card(part("stylegan2", TINY_STYLEGAN2)), marker, r"extra\.pkl")


def test_torchscript_is_named_as_code(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    with zipfile.ZipFile(tmp_path / "vgg16.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"vgg16/{name}", b"\x80\x02}.")
    with pytest.raises(ModelError, match="TorchScript program") as caught:
        import_file(tmp_path / "vgg16.pt", store, card(part("stylegan2", TINY_STYLEGAN2)))
    assert caught.value.code == "model.wrong_file"


def test_a_whole_pickled_module_is_refused_by_name(
    tmp_path: Path, store: ModelStore, card: Cards, marker: Path
) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "tiny.pt")
    refused(
        tmp_path / "tiny.pt",
        store,
        card(part("stylegan2", TINY_STYLEGAN2)),
        marker,
        r"torch\.nn\.modules\.linear\.Linear",
    )


# --------------------------------------------------------------------------------------- memory and stack


def test_stand_ins_do_not_survive_and_cannot_be_rewired() -> None:
    """BUILD on a stand-in class tries to replace its methods; the next load must not see it."""
    names = ["collections.OrderedDict"]
    rewire = b"\x80\x02ccollections\nOrderedDict\nN}X\x0b\x00\x00\x00__setitem__K\x01s\x86b."
    with pytest.raises(MalformedPickle):
        load_records(io.BytesIO(rewire), names)
    good = pickle.dumps({"x": __import__("collections").OrderedDict(a=1)})
    assert load_records(io.BytesIO(good), names)["x"].items == [("a", 1)]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"\x80\x02)" + b"\x85" * 100_000 + b".", "nested"),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo number"),
        (b"\x80\x02.", "runs empty"),
        (b"\x80\x02h\x07.", "memo 7 is read before"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "expected 9223372036854775807 bytes"),
        (b"\x80\x02t.", "mark"),
        (b"", "exhausted before"),
    ],
)
def test_pickles_built_to_exhaust_are_malformed(data: bytes, says: str) -> None:
    with pytest.raises(MalformedPickle, match=says):
        scan(io.BytesIO(data), frozenset())


def test_names_hidden_on_the_stack_are_still_named() -> None:
    hidden = b"\x80\x04X\x02\x00\x00\x00os\x94X\x06\x00\x00\x00system\x94" + b"h\x00h\x01\x930."
    with pytest.raises(RefusedGlobal, match=r"os\.system"):
        scan(io.BytesIO(hidden[:-2] + b"."), frozenset())


def test_long_lists_and_dictionaries_are_not_taken_for_deep_ones() -> None:
    for protocol in range(6):
        data = pickle.dumps({str(i): [i, {"x": (i,)}] for i in range(3000)}, protocol)
        assert scan(io.BytesIO(data), frozenset()) > 3000


def test_shared_values_are_read_once(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    """Thirty lists, each holding the one before twice: a reader that copies would make 2^30 values."""
    value: Any = [1]
    for _ in range(30):
        value = [value, value]
    array = np.empty((), dtype=object)
    array[()] = {"a": value}
    np.save(tmp_path / "codes.npy", array, allow_pickle=True)
    with pytest.raises(ModelError, match=r"'a': expected float32.*got a list"):
        import_file(tmp_path / "codes.npy", store, card('container = "npy-dict"\nstyle_codes = { shape = [1, 2, 2] }'))


def test_zip_bombs_and_false_sizes(tmp_path: Path, store: ModelStore, card: Cards) -> None:
    own = card(part("stylegan2", TINY_STYLEGAN2))
    bomb = tmp_path / "tiny.pt"
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tiny/data.pkl", b"\x80\x02}." + b"\0" * 50_000_000)
    assert bomb.stat().st_size < 100_000
    with pytest.raises(ModelError, match="compressed or encrypted"):
        import_file(bomb, store, own)
    array = tmp_path / "d.npy"
    with array.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 10**4)})  # type: ignore[no-untyped-call]
    with pytest.raises(ModelError) as caught:
        import_file(array, store, card('container = "npy"\n[tensors.d]\nshapes = [[-1, -1]]'))
    assert caught.value.code in ("model.damaged", "model.too_large")
    torch.save(torch.zeros(1).expand(10**6, 10**6), tmp_path / "e.pt")
    with pytest.raises(ModelError, match="claims 1000000000000 values"):
        import_file(tmp_path / "e.pt", store, card("[tensors.d]\nshapes = [[-1, -1]]"))
    assert leftovers(store) == []


def test_false_zip_directory(tmp_path: Path) -> None:
    """Two members that overlap, or that claim more bytes than the archive has."""
    path = tmp_path / "tiny.pt"
    torch.save({"w": torch.ones(2)}, path)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="claim to be larger"):
        read_container(path, "torch")
