"""One import in a process of its own, for a server (see importing): its order comes as a line on standard input.

Tells its progress as lines of JSON on standard output, `done` and `message`, and last either `finished` (the model's
id) or `error`. Ends at once when its standard input does, which is when the server does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from host_bridge.errors import FaceplateError
from inference_server.importing import ImportOrder
from inference_server.models.store import store_of


def main() -> int:
    """Import what is asked for; the exit status."""
    order = ImportOrder(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from inference_server.models.importer import Step, card_for_import, import_file  # loads torch: seconds

    def progress(step: Step) -> None:
        _tell({"done": step.share, "message": step.what})

    try:
        card = card_for_import(None, order.model or None, order.template or None)
        store = store_of(order.folders, writable=True)
        imported = import_file(Path(order.path), store, card, accept_licence=order.accept_licence, progress=progress)
    except FaceplateError as error:
        _tell({"error": error.to_wire()})
        return int(error.exit_code)
    left_out = f"left out: {', '.join(imported.left_out)}" if imported.left_out else ""
    _tell({"finished": imported.model.id, "done": 1.0, "message": left_out or "done"})
    return 0


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
