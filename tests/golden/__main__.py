"""`python -m tests.golden [FOLDER]`: checks every manifest of a folder, exits 1 on any miss or unrun case."""

from __future__ import annotations

import argparse
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from tests.golden.harness import DATA, Row, Session


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DATA, help="default: %(default)s")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="networks to run, e.g. 'raft_*'")
    parser.add_argument("--debug", action="store_true", help="stop with the traceback of a case that fails to run")
    options = parser.parse_args(argv)

    session = Session(options.folder, debug=options.debug)
    rows: list[Row] = []
    worst: dict[str, float] = {}
    started = time.monotonic()
    _print(f"{'network':24} {'case':14} {'output':18} {'kind':13} difference/tolerance")
    for row in session.broken():
        rows.append(row)
        _print_row(row)
    for network in [n for n in session.networks() if fnmatch(n, options.only)]:
        for row in session.run(network):
            rows.append(row)
            _print_row(row)
            worst[network] = max(worst.get(network, 0.0), row.ratio if row.ratio is not None else float("inf"))
    missed = sum(1 for row in rows if row.problem is None and not row.passed)
    unrun = sum(1 for row in rows if row.problem is not None)
    _print("")
    for network, ratio in worst.items():
        _print(f"{network:24} worst {ratio:.4f}")
    seconds = time.monotonic() - started
    _print(f"{len(rows) - missed - unrun} of {len(rows)} passed, {missed} missed, {unrun} not run, {seconds:.0f} s")
    if not rows:
        _print(f"nothing to check: no network matches {options.only!r}")
    return 0 if rows and not missed and not unrun else 1


def _print_row(row: Row) -> None:
    verdict = row.problem if row.problem is not None else f"{row.ratio:.4f}"
    mark = "" if row.passed else "   MISS" if row.problem is None else "   NOT RUN"
    _print(f"{row.network:24} {row.case:14} {row.output:18} {row.kind:13} {verdict}{mark}")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
