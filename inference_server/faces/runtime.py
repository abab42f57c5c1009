"""Runs MediaPipe's graphs as plain functions: one input, one answer, nothing remembered, nothing printed.

The models are those inside the mediapipe wheel; nothing is fetched. Only stateless graphs are built here, so that
what is found in a frame depends on that frame alone.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from host_bridge.errors import FaceError
from inference_server.faces.geometry import Picture8

# What MediaPipe's libraries say on stderr while a graph starts.
_CHATTER = re.compile(
    rb"^(WARNING: All log messages before absl|INFO: (Created TensorFlow|Initialized)|[IW]\d{4} \d\d:|\s*$)"
)
_STDERR = threading.Lock()


class Graph:
    """A MediaPipe graph from a picture to named outputs. Use from one thread at a time.

    config       text of a CalculatorGraphConfig whose input stream is `image`
    outputs      names of its output streams
    side_inputs  values of its side packets
    constants    protos fed to further input streams with every picture
    hints        PacketDataType names of streams whose type MediaPipe cannot tell by itself
    """

    def __init__(
        self,
        config: str,
        outputs: list[str],
        *,
        side_inputs: Mapping[str, Any] | None = None,
        constants: Callable[[], Mapping[str, Any]] | None = None,
        hints: Mapping[str, str] | None = None,
    ) -> None:
        with _quiet():
            solution_base = _mediapipe()
            from google.protobuf import text_format  # type: ignore[import-untyped, unused-ignore]
            from mediapipe.framework import calculator_pb2

            kinds = solution_base.PacketDataType
            typed = {name: kinds[kind] for name, kind in (hints or {}).items()}
            self._constants = dict(constants()) if constants else {}
            try:
                self._graph = solution_base.SolutionBase(
                    graph_config=text_format.Parse(config, calculator_pb2.CalculatorGraphConfig()),
                    side_inputs=dict(side_inputs or {}),
                    outputs=outputs,
                    stream_type_hints={"image": kinds.IMAGE_FRAME, **typed},
                )
                self(np.zeros((64, 64, 3), np.uint8))  # loads the models, which is when they talk
            except (RuntimeError, ValueError, OSError) as error:
                raise _unusable(str(error).splitlines()[0]) from error

    def __call__(self, image: Picture8) -> Any:
        """The outputs as attributes, None where the graph had nothing to say."""
        return self._graph.process({"image": np.ascontiguousarray(image), **self._constants})


def normalized_rect() -> Any:
    """The proto that names the whole picture as region of interest."""
    from mediapipe.framework.formats import rect_pb2

    return rect_pb2.NormalizedRect(x_center=0.5, y_center=0.5, width=1.0, height=1.0)


def _mediapipe() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside mediapipe's own dependencies
            from mediapipe.python import solution_base
    except ImportError as error:
        raise _unusable(f"mediapipe cannot be imported: {error}") from error
    return solution_base


def _unusable(why: str) -> FaceError:
    return FaceError(
        "face.detector",
        f"the face detector cannot run here: {why}",
        remedy="Install the server's packages into this Python (3.10 to 3.12): pip install 'faceplate[server]'.",
        value={"python": sys.version.split()[0]},
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back the libraries' start-up chatter on file descriptor 2; anything else said meanwhile is passed on."""
    with _STDERR, tempfile.TemporaryFile() as held:
        try:
            sys.stderr.flush()
            saved = os.dup(2)
        except (OSError, ValueError, AttributeError):  # no usable stderr: nothing to keep quiet
            yield
            return
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            held.seek(0)
            for line in held.read().splitlines(keepends=True):
                if not _CHATTER.match(line):
                    os.write(saved, line)
            os.close(saved)
