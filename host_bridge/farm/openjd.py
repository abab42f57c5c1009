"""Open Job Description 2023-09: a job template that `openjd run` and Deadline Cloud take.

Two steps, Analyse and, depending on it, Render in chunks (the TASK_CHUNKING extension). A step environment starts
one server for each worker's session, keys and connection file in the session's own folder, and stops it at the end; the
tasks of the session share it, so that models and plates stay warm between chunks.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from host_bridge.endpoint import CONNECTION_FILE
from host_bridge.errors import FarmError
from host_bridge.farm.commands import analyse_command, render_command, run_command
from host_bridge.farm.jobfile import JobFile
from host_bridge.framerange import format_frames

if TYPE_CHECKING:
    from host_bridge.farm.submission import Bundle

TEMPLATE = "template.json"
_GRACE_S = 60  # a frame in hand is finished or removed within this time
_SERVER = "{{Session.WorkingDirectory}}/faceplate-server"


def files(bundle: Bundle) -> Mapping[str, str]:
    return {TEMPLATE: json.dumps(template(bundle), indent=2) + "\n"}


def template(bundle: Bundle) -> dict[str, Any]:
    """The job template. Paths in it are the submitting machine's; a session's path mapping rules are applied."""
    common = ("--map-rules", "{{Session.PathMappingRulesFile}}", "--progress", "farm")
    files = ("{{Task.File.Job}}", "{{Param.ShotFile}}")
    analyse = (*analyse_command(*files), *common)
    render = (*render_command(*files, "{{Task.Param.Frame}}"), *common)
    return {
        "specificationVersion": "jobtemplate-2023-09",
        "extensions": ["TASK_CHUNKING"],
        "name": bundle.name[:128],
        "description": f"{bundle.job.effect}: {bundle.job.plate.pattern} to {bundle.job.output}",
        "parameterDefinitions": [
            {
                "name": "Frames",
                "type": "STRING",
                "default": format_frames(bundle.frames, step=":"),
                "description": "Frames to render; a step is written as :2",
            },
            {
                "name": "ChunkSize",
                "type": "INT",
                "minValue": 1,
                "default": bundle.options.chunk,
                "description": "Frames of one task",
            },
            {
                "name": "ShotFile",
                "type": "PATH",
                "objectType": "FILE",
                "dataFlow": "OUT",
                "default": bundle.shot_file.name,  # beside the template; absolute defaults are not allowed
                "description": "Where the analysis leaves the shot's id; all workers must see this folder",
            },
            {
                "name": "Faceplate",
                "type": "STRING",
                "default": bundle.options.command,
                "description": "Faceplate's command on the workers",
            },
        ],
        "steps": [
            {"name": "Analyse", "stepEnvironments": [_server()], "script": _script(bundle, analyse)},
            {
                "name": "Render",
                "dependencies": [{"dependsOn": "Analyse"}],
                "stepEnvironments": [_server()],
                "parameterSpace": {
                    "taskParameterDefinitions": [
                        {
                            "name": "Frame",
                            "type": "CHUNK[INT]",
                            "range": "{{Param.Frames}}",
                            "chunks": {"defaultTaskCount": "{{Param.ChunkSize}}", "rangeConstraint": "NONCONTIGUOUS"},
                        }
                    ]
                },
                "script": _script(bundle, render),
            },
        ],
    }


def _server() -> dict[str, Any]:
    return {
        "name": "Server",
        "description": "One server for this worker's session",
        "script": {
            "actions": {
                "onEnter": _action(("serve", "--detach", "--runtime", _SERVER, "--announce", "openjd")),
                "onExit": _action(("stop", "--server", f"{_SERVER}/{CONNECTION_FILE}")),
            }
        },
    }


def _script(bundle: Bundle, arguments: tuple[str, ...]) -> dict[str, Any]:
    text = JobFile(bundle.job, bundle.options.path_maps).text()
    return {
        "actions": {"onRun": _action(arguments)},
        "embeddedFiles": [{"name": "Job", "filename": "job.json", "type": "TEXT", "data": text}],
    }


def _action(arguments: tuple[str, ...]) -> dict[str, Any]:
    return {
        "command": "{{Param.Faceplate}}",
        "args": list(arguments),
        "cancelation": {"mode": "NOTIFY_THEN_TERMINATE", "notifyPeriodInSeconds": _GRACE_S},
    }


def hand_over(bundle: Bundle) -> str:
    """Give the folder to Deadline Cloud's command, which asks its own questions (farm, queue) in its settings."""
    command = shutil.which("deadline")
    if command is None:
        raise FarmError(
            "farm.missing",
            "the template is written, but there is no `deadline` command to submit it to Deadline Cloud",
            value=str(bundle.folder / TEMPLATE),
            path=str(bundle.folder),
            remedy=f"Install the package deadline, or run it here: openjd run {bundle.folder / TEMPLATE}.",
        )
    options = [] if bundle.options.priority < 0 else ["--priority", str(bundle.options.priority)]
    return run_command([command, "bundle", "submit", *options, "--yes", str(bundle.folder)])
