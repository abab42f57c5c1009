from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from host_bridge.envelope import MAGIC, Envelope, Limits, Pen, header_of, is_id, new_id, pack, unpack
from host_bridge.errors import FaceplateError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(), JSON, max_size=5), st.lists(st.binary(max_size=40), max_size=3), st.booleans())
def test_what_is_packed_comes_out_again(body: dict[str, object], buffers: list[bytes], answers: bool) -> None:
    pen = Pen()
    sent = Envelope(pen.header("pong"), pen.header("ping") if answers else None, body, tuple(buffers))
    assert unpack(pack(sent), Limits(buffers=3)) == sent


@given(st.lists(st.binary(max_size=60), max_size=7))
def test_noise_is_an_error_that_can_be_answered(frames: list[bytes]) -> None:
    with pytest.raises(FaceplateError) as caught:
        unpack(frames)
    assert caught.value.code in ("request.malformed", "request.too_large", "request.version")
    header_of(frames)


def test_a_retry_has_the_same_id_and_the_next_number() -> None:
    pen = Pen()
    first = pen.header("submit_job")
    again = pen.header("submit_job", first.id)
    assert (again.id, again.seq) == (first.id, first.seq + 1)
    assert is_id(first.id)
    assert is_id(first.session)
    assert not is_id(first.id.upper() + "0")


@pytest.mark.parametrize("index", range(4))
def test_every_frame_has_a_limit_that_is_checked_before_parsing(index: int) -> None:
    frames = pack(Envelope(Pen().header("ping"), None, {}))
    frames[index] = b"\xff" * 5000
    with pytest.raises(FaceplateError) as caught:
        unpack(frames, Limits(body=4096))
    assert caught.value.code == "request.too_large"
    assert caught.value.value == 5000


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "x"),
        ("id", None),
        ("session", "../../etc"),
        ("seq", -1),
        ("seq", True),
        ("type", "A b"),
        ("protocol", "one"),
    ],
)
def test_headers_are_checked(field: str, value: object) -> None:
    header = {**Pen().header("ping").to_json(), field: value}
    with pytest.raises(FaceplateError) as caught:
        unpack([MAGIC, json.dumps(header).encode(), b"null", b"{}"])
    assert caught.value.code == "request.malformed"


@pytest.mark.parametrize("body", [b"NaN", b'{"a": NaN}', b"[]", b"[" * 4000, b'{"a": ' + b"1" * 21 + b"}", b"\xff"])
def test_bodies_are_objects_without_surprises(body: bytes) -> None:
    frames = pack(Envelope(Pen().header("ping", new_id()), None, {}))
    with pytest.raises(FaceplateError) as caught:
        unpack([*frames[:3], body])
    assert caught.value.code == "request.malformed"
    assert header_of([*frames[:3], body]) is not None
