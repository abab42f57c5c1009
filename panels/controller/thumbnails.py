"""Thumbnails of a style parameter's choices, made from the artist's own plate while nothing else is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from panels.controller.observe import Topic
from panels.controller.preview import Picture


class Thumbnails:
    """`ready(choice)`: a thumbnail has arrived; `changed` follows `ready` and tells also that all were forgotten."""

    ready: Topic
    changed: Topic
    busy: str  # the choice that is made now, ""

    @property
    def param(self) -> str:
        """The style parameter of the chosen effect that has thumbnails; "" where there is none."""
        raise NotImplementedError

    def get(self, choice: str) -> Picture | None:
        """A choice's thumbnail, if it is there."""
        raise NotImplementedError

    def want(self, choices: Sequence[str]) -> None:
        """Say which choices are visible, in order; () stops. Those that are missing are made one at a time."""
        raise NotImplementedError
