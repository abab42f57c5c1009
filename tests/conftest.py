"""For every test: idle OpenMP threads sleep, as they do in a worker. Read when torch is imported."""

from __future__ import annotations

import os

for _name, _value in {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}.items():
    os.environ.setdefault(_name, _value)
