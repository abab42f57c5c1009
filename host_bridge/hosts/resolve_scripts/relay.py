"""The Resolve end of a menu script: starts Faceplate's own Python and lends it this Resolve's objects.

Resolve's Python may be any from 3.6 on and has nothing installed, so this file imports the standard library only and
keeps to what 3.6 reads. The child writes one call a line, as JSON, to its standard output and reads the answer from
its standard input; what it has to say to the artist comes over its standard error and is printed in Resolve's console.

    {"id": 1, "call": [0, "GetProjectManager", []]}    ->  {"id": 1, "value": {"$object": 1}}    0 is Resolve itself
    {"id": 2, "forget": true}                          ->  {"id": 2, "value": null}              the others are let go
"""

import json
import os
import subprocess
import threading
from typing import IO, Any

# Set for Resolve's own Python and Qt, and wrong for another one's.
FOREIGN = (
    "PYTHONHOME",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "QT_PLUGIN_PATH",
    "QT_QPA_PLATFORM_PLUGIN_PATH",
)

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), *[os.pardir] * 3))  # what holds host_bridge


def run(resolve: "Any", python: str, words: "list[str]") -> int:
    """Run `faceplate WORDS` beside Resolve until it ends; its exit status. Prints what went wrong."""
    if resolve is None:
        print("Faceplate: this script has to be started from Resolve: Workspace > Scripts.")
        return 5
    command = [python, "-m", "host_bridge.cli", *words, "--relay"]
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            universal_newlines=True,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as error:
        print(f"Faceplate: its Python cannot be started: {python} ({error})")
        print("           Install Faceplate again, then run: faceplate install resolve")
        return 5
    with child:
        said = threading.Thread(target=_print, args=(child.stderr,), daemon=True)
        said.start()
        try:
            _serve(resolve, child)
        finally:
            if child.stdin is not None:
                _close(child.stdin)
        status = child.wait()
        said.join(5.0)
    if status != 0:
        print(f"Faceplate ended with status {status}.")
    return status


def _close(stream: "IO[str]") -> None:
    try:
        stream.close()
    except OSError as error:  # the child has gone with an answer unread
        print(f"Faceplate: the last answer was not read: {error}")


def _print(stream: "Any") -> None:
    for line in stream:
        print(line.rstrip("\n"))


def _serve(resolve: "Any", child: "Any") -> None:
    objects = [resolve]
    for line in child.stdout:
        try:
            request = json.loads(line)
        except ValueError:  # said before the child had taken its output for the calls
            print(line.rstrip("\n"))
            continue
        try:
            answer = {"value": _do(request, objects)}
        except Exception as error:  # noqa: BLE001 - Resolve raises anything; it is raised again in the child
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer["id"] = request["id"]
        try:
            child.stdin.write(json.dumps(answer) + "\n")
            child.stdin.flush()
        except OSError as error:
            print(f"Faceplate ended before it read an answer: {error}")
            return


def _do(request: "dict[str, Any]", objects: "list[Any]") -> "Any":
    if request.get("forget"):
        del objects[1:]
        return None
    number, method, arguments = request["call"]
    call = getattr(objects[number], method, None)
    if call is None:
        raise AttributeError("this Resolve has no " + method)
    return _pack(call(*[_unpack(a, objects) for a in arguments]), objects)


def _pack(value: "Any", objects: "list[Any]") -> "Any":
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_pack(v, objects) for v in value]
    if isinstance(value, dict):
        return {str(k): _pack(v, objects) for k, v in value.items()}
    objects.append(value)
    return {"$object": len(objects) - 1}


def _unpack(value: "Any", objects: "list[Any]") -> "Any":
    if isinstance(value, list):
        return [_unpack(v, objects) for v in value]
    if isinstance(value, dict):
        if "$object" in value:
            return objects[value["$object"]]
        return {k: _unpack(v, objects) for k, v in value.items()}
    return value
