"""Presets in the panel: those of the user's and the shared folders, saved, applied, exchanged as files."""

from __future__ import annotations

from pathlib import Path

from host_bridge.errors import FaceplateError
from panels.controller.observe import Topic
from panels.presets import PresetFile


class Presets:
    """`changed`: the list is another."""

    files: tuple[PresetFile, ...]  # of all effects, by name; `.error` set where a file cannot be read
    changed: Topic

    def refresh(self) -> None:
        """Look into the folders again."""

    def save(self, name: str, *, note: str = "", shared: bool = False, replace: bool = False) -> Path:
        """Save effect, values and edits under a name. PanelError (`panel.preset`), also where the name is taken."""
        raise NotImplementedError

    def export(self, path: Path) -> None:
        """Write the present values to a file anywhere."""

    def apply(self, path: Path) -> tuple[FaceplateError, ...]:
        """Take a preset's effect, values and edits (one step to undo); what could not be taken, each with its reason.
        PanelError (`panel.preset`) when the file cannot be used at all."""
        raise NotImplementedError

    def add(self, path: Path) -> Path:
        """Copy a preset file that came from somewhere into the user's folder."""
        raise NotImplementedError

    def remove(self, path: Path) -> None:
        """Delete a preset of the user's folder."""

    @property
    def can_share(self) -> bool:
        """Whether there is a shared folder that can be written."""
        raise NotImplementedError
