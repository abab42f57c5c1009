"""The numbers of every step, one JSON object per line, so that curves go on where a resumed run takes up.

A line cut off by a kill is dropped at the next start, together with the steps after the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from inference_server.training.files import write_text

Series = dict[str, list[tuple[int, float]]]


class History:
    """Curves by name (`loss/...`, `watched/...`, `score`), mirrored to `path` where there is one."""

    def __init__(self, path: Path | None, step: int) -> None:
        self.path = path
        self.series: Series = {}
        if path is None:
            return
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that a kill cut off; its step is done again
                if record["step"] <= step:
                    kept.append(line)
                    self._take(record["step"], record["values"])
        write_text(path, "".join(f"{line}\n" for line in kept))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._take(step, values)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "values": dict(values)}) + "\n")

    def _take(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.series.setdefault(name, []).append((step, value))
