"""Points that other networks' face detectors mark, found on MediaPipe's mesh.

LatentSync and MuseTalk were trained on crops that InsightFace's 106 and DWPose's 68 points make. Here the nearest mesh
points take their place, moved by constants that `benchmarks/bench_landmarks.py` fitted on real clips.
"""

from __future__ import annotations

import numpy as np

from faces.alignment import align_matrix

MESH_68 = [
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,  # jaw
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301,  # brows
    168, 197, 5, 4, 75, 97, 2, 326, 305,  # nose
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,  # eyes
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,  # lips
]  # fmt: skip
"""Mesh points nearest to iBUG's 68 (https://ibug.doc.ic.ac.uk/resources/facial-point-annotations), in their order."""

LEFT_BROW, RIGHT_BROW = slice(17, 22), slice(22, 27)
NOSE = [29, 30, 31, 35]


def _offsets() -> np.ndarray:
    """What is to be added to the mesh points (68, 2) where the face is upright and its eyes are 72 px apart."""
    offsets = np.zeros((68, 2))
    offsets[:17, 0] = np.linspace(-1.1, 1.1, 17)
    offsets[4:13, 1] = 6.1
    offsets[LEFT_BROW], offsets[RIGHT_BROW] = (4.7, 1.9), (-4.7, 1.9)
    offsets[NOSE] = [(0, -4.0), (0, 0.3), (0, 0.3), (0, 0.3)]
    return offsets


OFFSETS = _offsets()


def sixty_eight(mesh: np.ndarray) -> np.ndarray:
    """The 68 face points (68, 2), px, of a mesh (468, 2 or 3) in px."""
    to_face = align_matrix(mesh)[:, :2].astype(np.float64)
    return mesh[MESH_68, :2] + OFFSETS @ np.linalg.inv(to_face).T


def brows_and_nose(mesh: np.ndarray) -> np.ndarray:
    """LatentSync's three points (3, 2), px, of a mesh: middles of the left and right brow, left as seen, and the nose.

    InsightFace's points 43 48 49 51 50 and 101 to 105 are the upper rows of the brows, 74 77 83 86 the lower bridge,
    the wings and the tip of the nose.
    """
    points = sixty_eight(mesh)
    return np.stack([points[part].mean(0) for part in (LEFT_BROW, RIGHT_BROW, NOSE)])
