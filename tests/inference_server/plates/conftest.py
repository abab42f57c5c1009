from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unprivileged import folder_for_anyone


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that a test's unprivileged part may enter and write to."""
    with folder_for_anyone() as folder:
        yield folder
