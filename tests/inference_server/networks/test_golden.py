"""Every recorded case is reproduced within its tolerance, each network being built once."""

from __future__ import annotations

import pytest

from tests.golden.harness import DATA, Session

NETWORKS = Session(DATA).networks()  # in running order: what is shared comes before who shares it


@pytest.fixture(scope="module")
def session() -> Session:
    return Session(DATA)


def test_the_folder_holds_every_recorded_network(session: Session) -> None:
    assert session.broken() == []
    kinds = (
        *("arcface", "bisenet", "crop_rules", "dualstylegan", "e4e", "hrnet", "lpips_alex", "lpips_vgg"),
        *("parse_smoothing", "psp", "raft_large", "raft_small", "stylegan2_256", "stylegan2_1024"),
        *("stylegan3_r", "stylegan3_t", "vtoonify_d", "vtoonify_pipeline", "vtoonify_t"),
    )
    assert all(any(network.startswith(kind) for network in NETWORKS) for kind in kinds)


@pytest.mark.parametrize("network", NETWORKS)
def test_recorded_cases_are_reproduced(session: Session, network: str) -> None:
    rows = list(session.run(network))
    assert any(row.kind == "output" for row in rows)
    assert [row for row in rows if not row.passed] == []
