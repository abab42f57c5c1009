"""The panel's brain, without Qt: state to read, methods to call, topics to observe. Views draw it and nothing else.

    controller.connection   which server, how things stand           controller.faces       faces, choice, corrections
    controller.effects      descriptors, the chosen one              controller.render      output, analyse, render
    controller.values       parameters, keyframes, edits             controller.jobs        progress, cancel, resume
    controller.history      the document; undo, redo                 controller.models      cards, imports
    controller.plate        plate, frame, mask, style picture        controller.server      devices, memory, queue
    controller.preview      result, plate, matte; viewer             controller.presets     saved values
    controller.thumbnails   the style's choices on this plate        controller.notices     what went wrong, what to do

Every method returns at once; what takes time comes back through a topic. Methods that raise say so; everything else
that goes wrong is in the part's `error`, or noticed.
"""

from __future__ import annotations

from panels.controller.connection import ConnectionState
from panels.controller.controller import Controller, PanelOptions
from panels.controller.corrections import Corrections
from panels.controller.document import Document, EditRow, EffectState, Setting
from panels.controller.faces import FacesState, FaceView
from panels.controller.jobs import JobRow
from panels.controller.models import LicenceQuestion, ModelCard, ModelImport
from panels.controller.notices import Notice
from panels.controller.observe import Home, Topic
from panels.controller.plate import PlateState
from panels.controller.preview import Picture, PreviewState, Viewer
from panels.controller.render import RenderSettings

__all__ = [
    "ConnectionState",
    "Controller",
    "Corrections",
    "Document",
    "EditRow",
    "EffectState",
    "FaceView",
    "FacesState",
    "Home",
    "JobRow",
    "LicenceQuestion",
    "ModelCard",
    "ModelImport",
    "Notice",
    "PanelOptions",
    "Picture",
    "PlateState",
    "PreviewState",
    "RenderSettings",
    "Setting",
    "Topic",
    "Viewer",
]
