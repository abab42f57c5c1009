"""Presets in the panel: those of the user's and the shared folders, saved, applied, exchanged as files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from host_bridge.errors import FaceplateError, PanelError, unknown_name
from panels.controller.document import EditRow, EffectState, Setting
from panels.controller.observe import Errands, Topic
from panels.controller.work import Work
from panels.presets import (
    SUFFIX,
    Preset,
    PresetFile,
    file_name,
    fit_preset,
    list_presets,
    load_preset,
    save_preset,
)


class Presets:
    """`changed`: the list is another."""

    def __init__(self, work: Work, errands: Errands, own: Path, shared: Sequence[Path]) -> None:
        self.files: tuple[PresetFile, ...] = ()  # of all effects, by name
        self._errands = errands
        self.changed = Topic()
        self._work = work
        self._own = own
        self._shared = tuple(shared)

    def refresh(self) -> None:
        """Look into the folders again."""
        self._errands.run(lambda: list_presets(self._own, self._shared), self._listed)

    @property
    def can_share(self) -> bool:
        """Whether there is a shared folder that can be written."""
        return any(os.access(folder, os.W_OK) for folder in self._shared)

    def present(self, name: str = "", note: str = "") -> Preset:
        """The values there are now as a preset. EffectError (`effect.unknown`) before an effect is chosen."""
        effect = self._work.effects.current
        if effect is None:
            listed = [d.identifier for d in self._work.effects.descriptors]
            raise unknown_name("effect.unknown", "effect", self._work.history.document.effect, listed)
        state = self._work.history.document.state
        params = {target: setting.to_json() for target, setting in state.params.items()}
        steps = tuple((row.name, row.setting.to_json()) for row in state.edits)
        return Preset(name, effect.identifier, effect.version, params, steps, note)

    def save(self, name: str, *, note: str = "", shared: bool = False, replace: bool = False) -> Path:
        """Save effect, values and edits under a name. PanelError (`panel.preset`), also where the name is taken."""
        folder = next((f for f in self._shared if os.access(f, os.W_OK)), None) if shared else self._own
        if folder is None:
            raise PanelError(
                "panel.preset",
                "there is no shared folder that can be written",
                remedy="Set FACEPLATE_PRESETS to one, or save the preset for yourself.",
            )
        path = folder / file_name(name)
        save_preset(path, self.present(name, note), replace=replace)
        self.refresh()
        return path

    def export(self, path: Path) -> None:
        """Write the present values to a file anywhere; it may be there already. PanelError (`panel.preset`)."""
        name = path.name.removesuffix(SUFFIX).removesuffix(".json")
        save_preset(path, self.present(name), replace=True)
        self.refresh()

    def apply(self, path: Path) -> tuple[FaceplateError, ...]:
        """Take a preset's effect, values and edits (one step to undo); what could not be taken, each with its reason.

        PanelError (`panel.preset`) when the file cannot be used, EffectError (`effect.unknown`) when the server does
        not have its effect.
        """
        preset = load_preset(path)
        effect = self._work.effects.find(preset.effect)
        if effect is None:
            listed = [d.identifier for d in self._work.effects.descriptors]
            raise unknown_name("effect.unknown", "effect", preset.effect, listed)
        fitted = fit_preset(preset, effect)
        state = EffectState(
            {name: Setting(curve, keyed) for name, (curve, keyed) in fitted.params.items()},
            tuple(EditRow(name, Setting(curve, keyed)) for name, curve, keyed in fitted.edits),
        )
        document = replace(self._work.history.document, effect=preset.effect).with_state(state)
        self._work.history.change(f"Preset {preset.name}", document)
        problem = self._work.values.problem()
        return (*fitted.problems, *((problem,) if problem is not None else ()))

    def add(self, path: Path) -> Path:
        """Copy a preset file that came from somewhere into the user's folder. PanelError (`panel.preset`)."""
        preset = load_preset(path)
        target = self._own / file_name(preset.name)
        save_preset(target, preset)
        self.refresh()
        return target

    def remove(self, path: Path) -> None:
        """Delete a preset of the user's folder. PanelError (`panel.preset`) for one of another folder."""
        if path.parent != self._own:
            raise PanelError(
                "panel.preset",
                f"the preset {path.name} is not yours",
                path=str(path),
                remedy="Delete it where it is shared.",
            )
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise PanelError(
                "panel.preset",
                f"the preset {path.name} cannot be deleted: {error.strerror}",
                path=str(path),
                remedy="Check the folder's permissions.",
            ) from error
        self.refresh()

    def _listed(self, outcome: tuple[PresetFile, ...] | FaceplateError) -> None:
        if not isinstance(outcome, FaceplateError) and outcome != self.files:
            self.files = outcome
            self.changed.emit()
