"""For every test: idle OpenMP threads sleep, as they do in a worker. Read when torch is imported."""

from __future__ import annotations

import os

from host_bridge.launcher import PATIENT_THREADS

for _name, _value in PATIENT_THREADS.items():
    os.environ.setdefault(_name, _value)
