"""Thumbnails, models and the server's status."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from host_bridge.errors import ModelError
from host_bridge.messages import DeviceStatus, Pong
from panels.bridge import Bridge
from panels.controller.models import LicenceQuestion, card_of, import_of
from panels.controller.ppm import read_ppm
from tests.panels.conftest import Desk

STYLES = ("cartoon", "pencil", "pop_print")


def test_thumbnails_come_one_at_a_time_while_nothing_else_is_asked_and_are_kept(
    desk: Desk, open_panel: Callable[..., Bridge], plate: str, tmp_path: Path
) -> None:
    control = open_panel(plate=plate, cache_folder=str(tmp_path)).controller
    thumbnails = control.thumbnails
    desk.wait(lambda: control.preview.state.result is not None)
    assert thumbnails.param == "style"
    arrived: list[str] = []
    thumbnails.ready.connect(arrived.append)
    thumbnails.want([*STYLES, "no such style"])
    for step in range(40):  # a slider is dragged: no thumbnail is begun
        control.values.set("degree", step / 40, dragging=True)
        desk.spin(0.01)
    assert arrived == []
    assert not thumbnails.busy
    control.values.release()
    desk.wait(lambda: len(arrived) == 3)
    assert tuple(arrived) == STYLES
    pictures = [thumbnails.get(style) for style in STYLES]
    assert len({picture.pixels for picture in pictures if picture}) == 3
    desk.wait(lambda: len(list((tmp_path / "thumbnails").glob("[!.]*.ppm"))) == 3)
    files = sorted((tmp_path / "thumbnails").iterdir())
    assert [p.suffix for p in files] == [".ppm"] * 3
    shown = pictures[0]
    kept = [read_ppm(path) for path in files]
    assert shown is not None
    assert shown.pixels in {picture.pixels for picture in kept if picture}

    again = open_panel(plate=plate, cache_folder=str(tmp_path)).controller  # another session: from disk
    desk.wait(lambda: again.plate.state.found and again.effects.current)
    files[0].write_bytes(b"P6 9 9 255\nhalf")  # and one that was damaged
    again.thumbnails.want(STYLES)
    desk.wait(lambda: all(again.thumbnails.get(style) for style in STYLES))
    assert again.thumbnails.get("cartoon").pixels == shown.pixels  # type: ignore[union-attr]
    desk.wait(lambda: read_ppm(files[0]) is not None)

    control.plate.set_frame(1004)  # those of another frame are others
    assert thumbnails.get("cartoon") is None
    control.effects.choose("retouch")
    assert thumbnails.param == ""
    desk.spin(0.05)
    assert not thumbnails.busy


def test_a_cache_that_cannot_be_written_costs_a_warning(
    desk: Desk, open_panel: Callable[..., Bridge], plate: str, tmp_path: Path
) -> None:
    (tmp_path / "thumbnails").write_text("not a folder")
    control = open_panel(plate=plate, cache_folder=str(tmp_path)).controller
    desk.wait(lambda: control.plate.state.found and control.effects.current)
    control.thumbnails.want(["cartoon", "pencil"])
    desk.wait(lambda: control.thumbnails.get("cartoon") and control.thumbnails.get("pencil"))
    desk.wait(lambda: control.notices.kept)
    assert [n.level for n in control.notices.kept] == ["warning"]
    assert "FACEPLATE_CACHE" in control.notices.kept[0].remedy


def test_models_are_listed_with_licence_and_how_to_get_them(
    desk: Desk, open_panel: Callable[..., Bridge], tmp_path: Path
) -> None:
    control = open_panel().controller
    desk.wait(lambda: control.models.cards)
    assert all(card.licences and card.summary for card in control.models.cards)
    assert all(card.how or card.present for card in control.models.missing)
    vtoonify = next(card for card in control.models.cards if card.id.startswith("vtoonify"))
    assert not vtoonify.present
    assert not vtoonify.commercial
    control.models.import_file(str(tmp_path / "none.pt"), vtoonify.id)
    desk.wait(lambda: control.notices.kept or control.models.question)
    if control.models.question is not None:  # the licence comes first
        control.models.accept()
        desk.wait(lambda: control.notices.kept)
    error = control.notices.kept[0].error
    assert error is not None
    assert error.code.startswith("model.")
    assert error.remedy
    assert control.models.question is None


def test_a_licence_is_asked_for_and_can_be_declined(desk: Desk, open_panel: Callable[..., Bridge]) -> None:
    models = open_panel(connect="none").controller.models
    refused = ModelError("model.licence", "non-commercial", remedy="Accept it.")
    models._answered("/m.pt", "x", refused)
    assert models.question == LicenceQuestion("/m.pt", "x", refused)
    models.decline()
    assert models.question is None
    models.accept()  # nothing is in question


def test_cards_and_imports_as_the_server_sends_them() -> None:
    card = card_of(
        {
            "id": "m",
            "title": "M",
            "purpose": "Draws.",
            "file": "m.pt",
            "licences": [{"name": "L", "noncommercial": True, "summary": "S", "url": "U"}],
            "sources": [{"host": "huggingface", "repo": "a/b", "path": "m.pt"}],
            "bytes": 12,
            "present": False,
        }
    )
    assert (card.label, card.commercial, card.licences, card.size) == ("M", False, (("L", "S", "U"),), 12)
    assert "faceplate models pull m" in card.how
    assert card.url == "https://huggingface.co/a/b"
    assert card_of({"id": "x"}).how
    failed = import_of({"path": "/m", "state": "failed", "error": {"code": "model.damaged", "message": "bad"}})
    assert failed.error is not None
    assert failed.error.code == "model.damaged"


def test_the_status_is_asked_for_while_somebody_looks(desk: Desk, open_panel: Callable[..., Bridge]) -> None:
    control = open_panel().controller
    desk.wait(lambda: control.connection.ready)
    control.server.watch(True)
    desk.wait(lambda: control.server.status)
    status = control.server.status
    assert status is not None
    assert [d.device for d in status.devices] == ["cpu"]
    told: list[float] = []
    control.server.changed.connect(lambda: told.append(time.monotonic()))
    control.server._answered(Pong(devices=[DeviceStatus("cpu", activity="loading m", activity_done=0.5)]))
    assert control.server.activity == ("loading m", 0.5)
    control.server.watch(False)
    desk.wait(lambda: control.server.activity == ("", 0.0))  # what has ended does not stand there for ever
    control.connection.disconnect()
    assert control.server.status is None
