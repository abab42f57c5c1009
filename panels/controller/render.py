"""Analyse and Render: output and range, what is missing before a job can be submitted, and the result in the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from host_bridge.errors import FaceplateError
from host_bridge.jobspec import JobSpec
from panels.controller.observe import Topic


@dataclass(frozen=True)
class RenderSettings:
    """`frames` "" = all on disk; `compression` "" = as read. `import_result`: the host shows the result when done."""

    output: str = ""
    frames: str = ""
    compression: str = ""
    matte_output: str = ""
    matte_channels: tuple[str, ...] = ()
    skip_existing: bool = False
    continue_on_error: bool = False
    priority: int = 0
    import_result: bool = True


class Render:
    """`changed`: the settings, or what is in the way, are others."""

    settings: RenderSettings
    changed: Topic
    preparing: str  # what the host is doing before the job can be sent ("Writing the plate"), ""

    def set(self, **fields: Any) -> None:
        """Change settings."""

    def suggest_output(self) -> str:
        """An output pattern beside the plate."""
        raise NotImplementedError

    def problems(self) -> tuple[FaceplateError, ...]:
        """What is in the way of a render, each with its remedy; () when it can be submitted."""
        raise NotImplementedError

    def job(self, kind: str = "render") -> JobSpec:
        """The job as it would be submitted."""
        raise NotImplementedError

    def analyse(self) -> None:
        """Submit the analysis of the shot."""

    def render(self) -> None:
        """Submit the render. What is in the way is noticed instead."""
