"""`python -m host_bridge.cli`: the command line where the `faceplate` script is not on the path."""

from __future__ import annotations

import sys

from host_bridge.cli import main

if __name__ == "__main__":
    sys.exit(main())
