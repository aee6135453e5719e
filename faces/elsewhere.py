"""Frames from other places in a video that show the person of a shot.

Nobody is recognised. A frame belongs to a shot if it could follow one of its frames: the same scenery, the face in the
same place, and nose and cheeks of the same colours and alike. A camera that moves on, another light or a head that is
turned away make that doubtful; such frames are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from faces.choice import CONTINUES
from faces.detector import iou
from faces.mouth_windows import MouthFrame
from faces.shots import difference

# Of 582 pairs of clips of different people, many before one wall in one light, the limit of the scenery lets none pass,
# those of the face alone 5; of frames seconds apart in one clip all together let pass 83 %.
_SAME_SCENERY = 0.7  # of the difference that makes a cut
_SAME_SKIN = 4.0  # CIE Lab
_ALIKE = 0.6  # correlation of the greys
_SAME_POSE_DEG = 8.0  # yaw and pitch: beyond, a mesh reads closed lips as parted and parted ones as closed
_FACE = (slice(0, 56), slice(16, 144))  # rows, columns of the mouth window: nose and cheeks
_BLUR_PX = 2.0
_COMPARED = 8  # frames of a shot


@dataclass(frozen=True, eq=False)
class _View:
    """What two frames are compared by.

    Attributes:
        scenery: float32 (N,), see `FaceFrame`.
        box: (4,), of the mouth window in the frame, px.
        skin: (3,), median colour of nose and cheeks, CIE Lab.
        face: float32 (h, w), their greys with mean 0 and spread 1.
        pose: (2,), yaw and pitch, degrees.
    """

    scenery: np.ndarray
    box: np.ndarray
    skin: np.ndarray
    face: np.ndarray
    pose: np.ndarray

    @classmethod
    def of(cls, frame: MouthFrame) -> _View:
        height, width = frame.window.shape[:2]
        corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
        seen = np.linalg.solve(frame.matrix[:, :2].astype(np.float64), (corners - frame.matrix[:, 2]).T).T
        face = frame.window[_FACE]
        lab = cv2.cvtColor(face.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        grey = cv2.GaussianBlur(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), _BLUR_PX)
        grey = (grey - grey.mean()) / max(float(grey.std()), 1e-3)
        box = np.concatenate([seen.min(0), seen.max(0)])
        return cls(frame.scenery, box, np.median(lab.reshape(-1, 3), axis=0), grey, frame.pose[:2])

    def is_like(self, other: _View, cut_threshold: float) -> bool:
        """Whether both may well show one person in one scene."""
        return bool(
            iou(self.box, other.box) >= CONTINUES
            and np.abs(self.pose - other.pose).max() <= _SAME_POSE_DEG
            and np.linalg.norm(self.skin - other.skin) <= _SAME_SKIN
            and (self.face * other.face).mean() >= _ALIKE
            and difference(self.scenery, other.scenery) <= _SAME_SCENERY * cut_threshold
        )


class Elsewhere:
    """Frames from all over a video, for whichever shot they belong to.

    Args:
        frames: with windows as in `faces.window`; those without one are left out. They keep no pictures.
        cut_threshold: see `faces.shots.scenes`.

    Attributes:
        frames: those with a window.
    """

    def __init__(self, frames: Sequence[MouthFrame], cut_threshold: float):
        self.frames = [frame for frame in frames if frame.reason is None]
        self._views = [_View.of(frame) for frame in self.frames]
        self._cut_threshold = cut_threshold

    def like(self, met: Sequence[MouthFrame]) -> list[MouthFrame]:
        """Those that show the person of frames of one shot with a window."""
        known = [_View.of(frame) for frame in met[:: -(-len(met) // _COMPARED)]] if self.frames else []
        alike = (any(view.is_like(one, self._cut_threshold) for one in known) for view in self._views)
        return [frame for frame, fits in zip(self.frames, alike, strict=True) if fits]
