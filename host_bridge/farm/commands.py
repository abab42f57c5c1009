"""The commands of a submission: Faceplate's own, as the workers run them, and the farm's, run here."""

from __future__ import annotations

import subprocess

from host_bridge.errors import FarmError


def analyse_command(job_file: str, shot_file: str) -> tuple[str, ...]:
    """What the first task runs, after `faceplate`: the shot's analysis, whole."""
    return ("run", job_file, "--analyse", "--shot-file", shot_file)


def render_command(job_file: str, shot_file: str, chunk: str) -> tuple[str, ...]:
    """What a chunk's task runs, after `faceplate`."""
    return ("run", job_file, "--chunk", chunk, "--shot-file", shot_file)


def run_command(command: list[str]) -> str:
    """What a farm's command said. FarmError `farm.refused` with its last words where it failed."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FarmError(
            "farm.refused", f"{command[0]} did not answer: {error}", value=command[0], remedy="Try it in a shell."
        ) from error
    said = (done.stdout + done.stderr).strip()
    if done.returncode:
        raise FarmError(
            "farm.refused",
            f"{command[0]} ended with status {done.returncode}: {said[-600:]}",
            value=done.returncode,
            remedy="What it says comes from the farm; the written files can be submitted by hand.",
        )
    return said
