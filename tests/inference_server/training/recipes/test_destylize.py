"""Destylization and refinement of codes at 32 px: losses, rows, resuming picture by picture, files of codes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from inference_server.models import ModelStore, import_file, load_style_codes
from inference_server.models.cards import read_cards
from inference_server.models.store import Folder
from inference_server.networks.stylegan2 import truncate
from inference_server.training.errors import TrainingError
from inference_server.training.events import Event, Finished, Pictured, Progress, Started
from inference_server.training.recipes.destylize import Destylize, DestylizeSettings
from inference_server.training.recipes.folder import PictureFolder
from inference_server.training.recipes.per_picture import PictureWork, read_collection, solve_pictures, write_codes
from inference_server.training.recipes.refine_codes import RefineCodes
from tests.inference_server.training.recipes.tiny_style import (
    DIM,
    ROWS,
    SIZE,
    codes,
    destylize_networks,
    refine_networks,
    write_pictures,
)


def destylize(folder: Path, **more: Any) -> Destylize:
    table = {"pictures": str(folder), "id": "tiny-codes", "steps": 5, "compare_at": 32, "keep_from": 5, **more}
    return Destylize(table, destylize_networks())


def refine(folder: Path, **more: Any) -> RefineCodes:
    names = PictureFolder(folder, SIZE).names
    table = {"pictures": str(folder), "id": "tiny-refined", "steps": 5, "compare_at": 32, **more}
    return RefineCodes(table, refine_networks(names))


def run(work: PictureWork, folder: Path, pictures: int | None = None) -> list[Event]:
    """All events; closed in the middle of the picture after the first `pictures`."""
    events: list[Event] = []
    loop = solve_pictures(work, folder)
    for event in loop:
        events.append(event)
        done = sum(isinstance(e, Pictured) for e in events)
        if done == pictures and isinstance(event, Progress):
            loop.close()
            break
    return events


def of(kind: type[Any], events: Sequence[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def totals(events: Sequence[Event], names: Sequence[str]) -> list[float]:
    return [sum(e.losses[n] for n in names) for e in of(Progress, events)]


def result(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((folder / "codes").iterdir())}


def test_published_rates() -> None:
    settings = DestylizeSettings("x")
    assert settings.rate_at(0) == 0.0
    assert settings.rate_at(15) == pytest.approx(0.1)  # 5 % of 300
    assert settings.rate_at(225) == pytest.approx(0.1)
    assert settings.rate_at(3) == pytest.approx(0.02)
    assert settings.rate_at(225 + 37) == pytest.approx(0.1 * (0.5 - 0.5 * np.cos(np.pi * 38 / 75)))
    assert settings.rate_at(299) < 1e-4


def test_destylization_fits_the_picture_and_keeps_the_rows_it_should(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 1)
    work = destylize(folder, steps=30)
    events = run(work, tmp_path / "run")
    losses = totals(events, ["perceptual", "identity", "spread"])
    assert len(losses) == 30
    assert losses[-1] < 0.6 * losses[0]
    found = read_collection(tmp_path / "run", work.pictures)
    networks = destylize_networks()
    read = networks.encoder(work.pictures.picture(0)[None])
    torch.testing.assert_close(found.extrinsic, read)
    torch.testing.assert_close(found.intrinsic[:, 5:], read[:, 5:])
    assert not torch.allclose(found.intrinsic[:, :5], read[:, :5], atol=1e-3)
    sheet = cv2.imread(str(tmp_path / "run" / "sheets" / "style_00.png.png"))
    assert sheet.shape[1] > 5 * SIZE


def test_content_is_the_encoders_reading_of_the_destylized_face(tmp_path: Path) -> None:
    """With a rate of next to nothing stage II changes nothing, and stage III can be worked out by hand."""
    folder = write_pictures(tmp_path / "pictures", 1)
    work = destylize(folder, steps=1, truncation=0.5)
    run(work, tmp_path / "run")  # the rate of the first step is 0
    n = destylize_networks()
    with torch.no_grad():
        read = n.encoder(work.pictures.picture(0)[None])
        face = n.base.synthesis(truncate(n.base.mapping(read), 0.5), n.base.stored_noise())
        again = n.encoder(face)
    found = read_collection(tmp_path / "run", work.pictures)
    torch.testing.assert_close(found.intrinsic[:, :5], again[:, :5])


def test_refinement_fits_the_pictures(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 1)
    work = refine(folder, steps=20, structure_rate=0.2, colour_rate=0.2)
    events = run(work, tmp_path / "run")
    losses = totals(events, ["contextual"])
    assert losses[-1] < 0.85 * losses[0]
    found, before = read_collection(tmp_path / "run", work.pictures), codes(work.pictures.names)
    torch.testing.assert_close(found.intrinsic, before.intrinsic)
    assert not torch.allclose(found.extrinsic, before.extrinsic, atol=0.01)


def test_rates_of_refinement_by_row(tmp_path: Path) -> None:
    """Adam's first step moves a number by its rate, whatever the gradient."""
    work = refine(write_pictures(tmp_path / "pictures", 1), steps=1)
    run(work, tmp_path / "run")
    moved = (read_collection(tmp_path / "run", work.pictures).extrinsic - codes(work.pictures.names).extrinsic).abs()
    split = 7  # rows with a ModRes block
    for rows, rate in ((moved[:, :split], 0.005), (moved[:, split:], 0.01)):
        torch.testing.assert_close(rows.median(), torch.tensor(rate), rtol=0.02, atol=0)


@pytest.mark.parametrize("make", [destylize, refine])
def test_stopped_work_goes_on_with_the_next_picture(tmp_path: Path, make: Any) -> None:
    folder = write_pictures(tmp_path / "pictures", 3)
    run(make(folder), tmp_path / "whole")
    cut = run(make(folder), tmp_path / "parts", pictures=1)
    assert not of(Finished, cut)
    assert len(result(tmp_path / "parts")) == 1
    events = run(make(folder), tmp_path / "parts")
    assert events[0] == Started(5, 15, 0, 1)
    assert [e.step for e in of(Progress, events)] == list(range(6, 16))
    assert result(tmp_path / "whole") == result(tmp_path / "parts")
    for whole, part in zip(of(Finished, run(make(folder), tmp_path / "whole")), of(Finished, events), strict=True):
        assert whole.weights.read_bytes() == part.weights.read_bytes()
        assert whole.card.read_text() == part.card.read_text()


def test_a_replaced_picture_and_a_damaged_result_are_done_again(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 3)
    run(destylize(folder), tmp_path / "run")
    before = result(tmp_path / "run")
    cv2.imwrite(str(folder / "style_01.png"), np.full((SIZE, SIZE, 3), 90, np.uint8))
    damaged = tmp_path / "run" / "codes" / "style_02.png.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:20])
    with pytest.raises(TrainingError, match="has no codes for 2 of the 3 pictures"):
        read_collection(tmp_path / "run", PictureFolder(folder, SIZE))
    events = run(destylize(folder), tmp_path / "run")
    assert len(of(Progress, events)) == 10
    after = result(tmp_path / "run")
    assert [name for name in after if after[name] != before[name]] == ["style_01.png.safetensors"]


def test_other_settings_are_refused(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 1)
    run(destylize(folder), tmp_path / "run")
    with pytest.raises(TrainingError, match=r"recipe\.steps: 5 -> 6") as caught:
        run(destylize(folder, steps=6), tmp_path / "run")
    assert caught.value.code == "training.resume"
    with pytest.raises(TrainingError, match="another run"):
        run(refine(folder), tmp_path / "run")


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 1)
    first = solve_pictures(destylize(folder), tmp_path / "run")
    next(first)
    with pytest.raises(TrainingError, match="another process is working") as caught:
        run(destylize(folder), tmp_path / "run")
    assert caught.value.code == "training.busy"
    first.close()


def test_files_of_codes_are_imported_as_they_are(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 3)
    work = destylize(folder, steps=1)
    events = run(work, tmp_path / "run")
    found = read_collection(tmp_path / "run", work.pictures)
    store = ModelStore((Folder(tmp_path / "models", True),))
    files = {e.weights.name: e for e in of(Finished, events)}
    assert set(files) == {"exstyle_code.npy", "instyle_code.npy"}
    for name, values, model in (
        ("exstyle_code.npy", found.extrinsic, "tiny-codes"),
        ("instyle_code.npy", found.intrinsic, "tiny-codes-intrinsic"),
    ):
        (card,) = read_cards(files[name].card)
        assert card.id == model
        assert card.style_codes is not None
        assert card.style_codes.count == 3
        import_file(files[name].weights, store, card)
        stored = load_style_codes(model, store=store)
        assert stored.names == tuple(work.pictures.names)
        assert torch.equal(stored.codes, values)
        assert stored.index("style_01") == 1


def test_order_of_names_is_kept(tmp_path: Path) -> None:
    names = ["z.png", "a.png", "m.png"]
    write_codes(tmp_path / "c.npy", names, torch.randn(3, ROWS, DIM))
    table = np.load(tmp_path / "c.npy", allow_pickle=True).item()
    assert list(table) == names
    assert {(v.shape, str(v.dtype)) for v in table.values()} == {((1, ROWS, DIM), "float32")}
