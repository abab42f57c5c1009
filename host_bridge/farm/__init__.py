"""Render farms: a job on disk, and what each farm needs to run it.

A submission is a folder: `job.json`, the job as every task reads it, and beside it what one farm takes. Each task
is `faceplate run job.json --chunk FRAMES`; an analysis task runs before them and leaves the shot's id in a file, so
that no task ever analyses a part of a shot as if it were the whole. Faceplate schedules nothing itself.
"""

from __future__ import annotations

from host_bridge.farm.options import FarmOptions
from host_bridge.farm.submission import FARMS, Submission, submit

__all__ = ["FARMS", "FarmOptions", "Submission", "submit"]
