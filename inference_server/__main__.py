"""`python -m inference_server [JSON]`: how the launcher starts a server; JSON overrides the configuration."""

from __future__ import annotations

import json
import sys

from host_bridge.launcher import check_server_python


def main() -> int:
    from host_bridge.errors import FaceplateError

    try:
        check_server_python()
        from inference_server.config import load_config
        from inference_server.server import run

        config = load_config(json.loads(sys.argv[1]) if len(sys.argv) > 1 else {})
    except FaceplateError as error:
        sys.stderr.write(f"faceplate: {error}\n")
        return int(error.exit_code)
    return run(config, foreground=False)


if __name__ == "__main__":
    sys.exit(main())
