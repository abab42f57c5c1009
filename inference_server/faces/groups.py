"""Groups of landmarks by how they move, and what each group is allowed in blending and smoothing.

SIGMA is the Gaussian over time, in frames, of a point's motion within the head (head motion itself is smoothed with
HEAD_SIGMA, so that all points of a face lag alike). What is bone keeps its shape over seconds: 3 frames, the value
published for this scheme. A blink is down and up within 4 to 6 frames at 24 frames per second and its lowest frame
must stay low: with sigma 0.5 the middle frame keeps 79 % of its own weight, with 1.0 only 40 %. Lips close for one
to three frames in speech (p, b, m) and open as fast, and eyes jump within a frame: 0.5 as well. Brows move within 5 to
10 frames: 1.2. Jaw and cheeks follow the mouth: 1.0.

FLOW_SHARE bounds the weight of flow against detection. Texture that sticks to the bone is followed well (0.75: older
errors are forgotten with a half-life of two and a half frames). Lids slide over the eye and lips roll, and an outline
against the background is no point of the face, so those rely more on detection.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inference_server.faces import mattes
from inference_server.faces.types import LANDMARKS

HEAD_SIGMA = 1.0

# Points that expression hardly moves: forehead, bridge of the nose, eye corners, cheekbones, temples.
RIGID = (
    *(10, 67, 297, 109, 338, 103, 332, 54, 284, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 98, 327),
    *(33, 133, 362, 263, 127, 356, 162, 389, 234, 454, 116, 345, 117, 346, 123, 352, 129, 358),
)
_LIDS = (
    *mattes.LEFT_EYE,
    *mattes.RIGHT_EYE,
    *(247, 30, 29, 27, 28, 56, 190, 243, 112, 26, 22, 23, 24, 110, 25, 130, 226, 113, 225, 224, 223, 222, 221),
    *(467, 260, 259, 257, 258, 286, 414, 463, 341, 256, 252, 253, 254, 339, 255, 359, 446, 342, 445, 444, 443, 442),
    *(441,),
)
_LIPS = (
    *mattes.LIPS,
    *mattes.MOUTH,
    *(76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77),
    *(62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96),
)
_BROWS = (*mattes.LEFT_BROW, *mattes.RIGHT_BROW)
_IRISES = tuple(range(468, 478))
_JAW = (
    *(132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361),
    *(18, 200, 199, 175, 83, 313, 201, 421, 194, 418, 208, 428, 171, 396, 140, 369, 32, 262, 211, 431, 170, 395),
    *(57, 287, 43, 273, 106, 335, 182, 406, 202, 422, 204, 424, 212, 432, 214, 434, 210, 430, 169, 394, 135, 364),
    *(186, 410, 92, 322, 165, 391, 167, 393, 164, 206, 426, 216, 436, 207, 427, 192, 416, 138, 367, 213, 433, 215, 435),
)
_OUTLINE = mattes.OVAL
_CORNERS = (33, 133, 362, 263)


def _per_point(default: float, *groups: tuple[tuple[int, ...], float]) -> NDArray[np.float64]:
    out = np.full(LANDMARKS, default)
    for indices, value in groups:
        out[list(indices)] = value
    return out


SIGMA = _per_point(3.0, (_JAW, 1.0), (_BROWS, 1.2), (_LIPS, 0.5), (_LIDS, 0.5), (_IRISES, 0.5), (_CORNERS, 1.0))
FLOW_SHARE = _per_point(0.75, (_JAW, 0.6), (_OUTLINE, 0.4), (_BROWS, 0.6), (_LIPS, 0.45), (_LIDS, 0.35), (_IRISES, 0.3))
