"""The faces of a frame and the tracks of its shot, as the panel draws and corrects them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from host_bridge.errors import FaceError
from host_bridge.messages import Faces
from inference_server.faces.types import FaceFrame, FaceState
from inference_server.plates.sequence import format_frames
from inference_server.plates.types import Window
from inference_server.rendering import choose_faces
from inference_server.shots.editing import export_repairs
from inference_server.shots.store import ShotRecord
from inference_server.shots.types import ShotAnalysis, Track

_DECIMALS = 2


def list_faces(
    record: ShotRecord | None,
    analysis: ShotAnalysis,
    frame: int,
    choice: str,
    region: Callable[[FaceFrame], Window] | None,
) -> Faces:
    """`analysis` at `frame`; of the stored shot `record`, or of that frame alone.

    choice  the job's face choice; one that names no face of the shot chooses none
    region  the crop an effect takes of a face, None without an effect
    """
    try:
        chosen = choose_faces(analysis, choice)
    except FaceError:
        chosen = ()
    # A face that effects do not see is still there to be enabled again.
    every = replace(analysis, tracks=tuple(replace(track, enabled=True) for track in analysis.tracks))
    found = [(track, every.face_at(track.id, frame)) for track in analysis.tracks]
    return Faces(
        frame=frame,
        shot=record.id if record else "",
        locked=record.locked if record else False,
        faces=[_face(face, track, track.id in chosen, region) for track, face in found if face is not None],
        tracks=[_track(track, analysis, track.id in chosen) for track in analysis.tracks] if record else [],
        repairs=json.loads(export_repairs(record.repairs)) if record else {},
    )


def _face(face: FaceFrame, track: Track, chosen: bool, region: Callable[[FaceFrame], Window] | None) -> dict[str, Any]:
    crop = region(face) if region else None
    return {
        "track": face.track,
        "enabled": track.enabled,
        "state": face.state.name.lower(),
        "score": round(face.score, 4),
        "chosen": chosen,
        "box": [round(v, _DECIMALS) for v in face.box],
        "points": [[round(float(v), _DECIMALS) for v in point] for point in face.landmarks[:, :2]],
        "region": [crop.x0, crop.y0, crop.x1, crop.y1] if crop is not None and not crop.empty else [],
    }


def _track(track: Track, analysis: ShotAnalysis, chosen: bool) -> dict[str, Any]:
    present = [f for f, state in zip(analysis.frames, track.states, strict=True) if state != FaceState.ABSENT]
    return {"track": track.id, "enabled": track.enabled, "chosen": chosen, "frames": format_frames(present)}
