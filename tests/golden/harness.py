"""Runs recorded cases through our networks and says how far each result is from its recording.

A folder of manifests is planned so that every network is built once and dropped after its last use; a
manifest that composes the networks of others (`weights`) comes after them. Whatever cannot be run (unknown
network, missing array, unread field, an exception) becomes a row that did not pass; nothing is skipped.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden.manifest import Array, Case, Manifest, ManifestError, Output, read_manifest

DATA = Path(__file__).parent / "data"

Results = Mapping[str, Any]  # output name -> array or tensor of the full size; "expected" -> mapping


@dataclass(frozen=True)
class Adapter:
    """How one kind of network is built from a manifest and called for a case.

    `build(manifest, partners)` returns whatever `run` needs, usually a module in eval mode with the synthetic
    weights (`weights.load_synthetic`); sizes come from `manifest.config`. `partners` holds, by role, what the
    adapters of the manifests named in `manifest.weights` built; it is empty for a network on its own.
    `run(built, case)` returns {output name: tensor or array} at full size, more than was recorded if it likes, and
    {"expected": {...}} where the case has `expected` values. Every field of config, args and inputs has to be read
    (see `Fields`).
    """

    build: Callable[[Manifest, Mapping[str, Any]], Any]
    run: Callable[[Any, Case], Results]


@dataclass(frozen=True)
class Row:
    """One compared output, or one thing that could not be run (`problem`). Passed means `ratio` <= 1."""

    network: str
    case: str
    output: str
    kind: str = "output"
    ratio: float | None = None  # largest difference over tolerance
    problem: str | None = None

    @property
    def passed(self) -> bool:
        return self.problem is None and self.ratio is not None and self.ratio <= 1.0


def find_adapter(network: str, adapters: Mapping[str, Adapter]) -> Adapter:
    """The adapter whose kind is the network's name or the longest `kind_...` prefix of it."""
    kinds = [kind for kind in adapters if network == kind or network.startswith(f"{kind}_")]
    if not kinds:
        raise ManifestError(f"unknown network {network!r}: adapters exist for {sorted(adapters)}")
    return adapters[max(kinds, key=len)]


class Session:
    """One run over a folder: reads its manifests and holds the networks that are still needed."""

    def __init__(self, folder: Path = DATA, adapters: Mapping[str, Adapter] | None = None, debug: bool = False) -> None:
        if adapters is None:
            from tests.golden.adapters import collect

            adapters = collect()
        self.folder = folder
        self.debug = debug  # re-raise what a case raises, for the traceback
        self._adapters = adapters
        self._built: dict[str, Any] = {}
        self._manifests: dict[str, Manifest] = {}
        self._broken: list[Row] = []
        if not folder.is_dir():
            self._broken.append(Row(str(folder), "-", "-", problem="no such folder"))
            return
        for path in sorted(folder.glob("*.json")):
            try:
                manifest = read_manifest(path)
                if manifest.network in self._manifests:
                    raise ManifestError(f"{path.name}: a second manifest of {manifest.network!r}")
                self._manifests[manifest.network] = manifest
            except (ManifestError, KeyError, TypeError, AttributeError) as error:
                self._broken.append(Row(path.stem, "-", "-", problem=_describe(error)))
        for path in sorted(folder.glob("*.npz")):
            if not path.with_suffix(".json").is_file():
                self._broken.append(Row(path.stem, "-", "-", problem="an array file without a manifest"))
        if not self._manifests and not self._broken:
            self._broken.append(Row(str(folder), "-", "-", problem="the folder holds no manifest"))

    def broken(self) -> list[Row]:
        """Rows for the files of the folder that are no readable manifest."""
        return list(self._broken)

    def networks(self) -> list[str]:
        """Networks in running order: by name, each after those whose weights it borrows."""
        order: list[str] = []
        seen: set[str] = set()

        def visit(name: str) -> None:
            if name in self._manifests and name not in seen:
                seen.add(name)
                for partner in self._manifests[name].weights.values():
                    visit(partner)
                order.append(name)

        shared = {n for m in self._manifests.values() if m.weights for n in (m.network, *m.weights.values())}
        for name in [*sorted(set(self._manifests) - shared), *sorted(shared & set(self._manifests))]:
            visit(name)
        return order

    def run(self, network: str) -> Iterator[Row]:
        """Builds the network (once per session), runs its cases, and drops what nobody later needs."""
        manifest = self._manifests[network]
        try:
            built = self._build(network)
            adapter = find_adapter(network, self._adapters)
        except Exception as error:  # answered with a row for each case that therefore did not run
            if self.debug:
                raise
            for case_id in manifest.case_ids():
                yield Row(network, case_id, "-", problem=_describe(error))
            return
        for index, case_id in enumerate(manifest.case_ids()):
            yield from self._run_case(manifest, index, case_id, adapter, built)
        del built
        self._drop_after(network)

    def _run_case(self, manifest: Manifest, index: int, case_id: str, adapter: Adapter, built: Any) -> Iterator[Row]:
        try:
            case = manifest.case(index)
            with torch.inference_mode():
                results = adapter.run(built, case)
            case.args.refuse_unread()
            case.inputs.refuse_unread()
        except Exception as error:  # answered with a row that does not pass
            if self.debug:
                raise
            yield Row(manifest.network, case_id, "-", problem=_describe(error))
            return
        yield from compare(manifest, case, results)

    def _build(self, network: str) -> Any:
        if network not in self._manifests:
            raise ManifestError(f"no manifest of {network!r} in {self.folder}")
        if network not in self._built:
            manifest = self._manifests[network]
            adapter = find_adapter(network, self._adapters)
            partners = {role: self._build(name) for role, name in manifest.weights.items()}
            self._built[network] = adapter.build(manifest, partners)
            manifest.config.refuse_unread()
        return self._built[network]

    def _drop_after(self, network: str) -> None:
        order = self.networks()
        later = order[order.index(network) + 1 :]
        needed = {p for name in later for p in self._manifests[name].weights.values()}
        for name in [n for n in self._built if n not in needed]:
            del self._built[name]
        gc.collect()


def run_folder(
    folder: Path = DATA, adapters: Mapping[str, Adapter] | None = None, debug: bool = False
) -> Iterator[Row]:
    """All rows of a folder, broken files first."""
    session = Session(folder, adapters, debug)
    yield from session.broken()
    for network in session.networks():
        yield from session.run(network)


def compare(manifest: Manifest, case: Case, results: Results) -> Iterator[Row]:
    """One row for every recorded output of a case (an intermediate may be left out) and expected value."""
    for output in case.outputs:
        if output.name not in results:
            if output.kind == "output":
                yield Row(manifest.network, case.id, output.name, problem="our network does not return it")
            continue
        try:
            ratio = worst_ratio(output, as_array(results[output.name]), case.arrays[output.npz_key])
        except ManifestError as error:
            yield Row(manifest.network, case.id, output.name, output.kind, problem=str(error))
        else:
            yield Row(manifest.network, case.id, output.name, output.kind, ratio)
    if case.expected is not None:
        ours = results.get("expected", {})
        for name, value in case.expected.items():
            if name not in ours:
                yield Row(manifest.network, case.id, name, problem="our code does not return it")
                continue
            try:
                ratio = expected_ratio(value, ours[name], manifest.tolerance.get("floats", {}))
            except ManifestError as error:
                yield Row(manifest.network, case.id, name, problem=str(error))
            else:
                yield Row(manifest.network, case.id, name, ratio=ratio)


def worst_ratio(output: Output, ours: Array, recorded: Array) -> float:
    """Largest |ours - recorded| over the tolerance of its element; not finite counts as infinitely far."""
    if ours.shape != output.full_shape:
        raise ManifestError(f"our shape is {list(ours.shape)}, recorded {list(output.full_shape)}")
    x = np.asarray(ours[output.index], dtype=np.float64)
    if recorded.shape != output.shape or x.shape != output.shape:
        raise ManifestError(
            f"slice {list(x.shape)}, stored {list(recorded.shape)}, manifest {list(output.shape)}: all must agree"
        )
    ref = np.asarray(recorded, dtype=np.float64)
    if not np.isfinite(x).all():
        return float("inf")
    difference, tolerance = np.abs(x - ref), output.tolerance
    ratios = []
    if "atol" in tolerance:
        ratios.append((difference / (tolerance["atol"] + tolerance.get("rtol", 0.0) * np.abs(ref))).max())
    if "max_abs" in tolerance:
        ratios.append(difference.max() / tolerance["max_abs"])
    if "mean_abs" in tolerance:
        ratios.append(difference.mean() / tolerance["mean_abs"])
    return float(max(ratios))


def expected_ratio(recorded: Any, ours: Any, floats: Mapping[str, float]) -> float:
    """The same for a JSON value: whole numbers and truth values must be equal, floats near, lists alike."""
    if isinstance(recorded, list):
        values = ours.tolist() if isinstance(ours, np.ndarray) else list(ours)
        if len(values) != len(recorded):
            raise ManifestError(f"our length is {len(values)}, recorded {len(recorded)}")
        return max((expected_ratio(r, o, floats) for r, o in zip(recorded, values, strict=True)), default=0.0)
    if isinstance(recorded, float):
        if set(floats) - {"atol", "rtol"} or "atol" not in floats:
            raise ManifestError(f"unknown tolerance of floats {dict(floats)}")
        if not np.isfinite(ours):
            return float("inf")
        return float(abs(ours - recorded) / (floats["atol"] + floats.get("rtol", 0.0) * abs(recorded)))
    return 0.0 if ours == recorded else float("inf")


def as_array(value: Any) -> Array:
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)


def _describe(error: Exception) -> str:
    text = str(error) or repr(error)
    return text if isinstance(error, ManifestError) else f"{type(error).__name__}: {text}"
