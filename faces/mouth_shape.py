"""Mouth shape as ten numbers: lips and jaw of the aligned mesh, relative to the person's resting mouth and head pose.

The speech part of the model predicts these coefficients, the generator draws what they say. For a frame, the *base* is
where lips and jaw would lie if the person's median mouth were seen at this frame's head pose; a linear map from points
that do not move with speech gives the pose's share. What is left is speech and expression; its principal components are
the coefficients.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file, save_file

from faces.alignment import JAW, LIPS_INNER, LIPS_OUTER, STABLE
from faces.window import WINDOW_SIZE

SHAPE_POINTS = LIPS_OUTER + LIPS_INNER + JAW
NUM_POINTS = len(SHAPE_POINTS)
SKETCH_SIZE = 40
RESTING_OPENING_PX = 4.3  # gap of the mesh's inner lips; a quarter of 83 people's median mouths are below it
CLOSED_PART = 0.3  # gap of pressed lips in parts of the resting mouth's: 1st percentile of the median of 83 people
_SUBPIXEL_BITS = 4  # cv2.fillPoly takes fixed-point coordinates; 1/16 px keeps small openings
_OUTER = slice(0, len(LIPS_OUTER))
_INNER = slice(_OUTER.stop, _OUTER.stop + len(LIPS_INNER))
_JAW = slice(_INNER.stop, NUM_POINTS)
_UPPER_INNER = [_INNER.start + i for i in (4, 5, 6)]
_LOWER_INNER = [_INNER.start + i for i in (16, 15, 14)]


@dataclass(frozen=True)
class Neutral:
    """A person's resting mouth: median lip and jaw points (P, 2) and median pose points (S, 2), window px."""

    mouth: np.ndarray
    pose: np.ndarray


@dataclass(frozen=True)
class MouthShape:
    """Linear model of mouth shapes.

    Attributes:
        pose_map: (S*2, P*2) pose points' displacement -> lip and jaw displacement.
        components: (K, P*2) principal directions in window px per unit coefficient.
    """

    pose_map: np.ndarray
    components: np.ndarray

    @property
    def num_coefficients(self) -> int:
        return self.components.shape[0]

    @classmethod
    def load(cls, folder: Path) -> MouthShape:
        """Read ``config.json`` and ``model.safetensors``.

        Raises:
            FileNotFoundError: the folder lacks them.
            ValueError: their sizes disagree.
        """
        config = json.loads((Path(folder) / "config.json").read_text())
        tensors = load_file(Path(folder) / "model.safetensors")
        expected = (config["num_coefficients"], config["num_points"] * 2)
        if tensors["components"].shape != expected:
            raise ValueError(f"{folder}: components are {tensors['components'].shape}, config says {expected}.")
        return cls(tensors["pose_map"], tensors["components"])

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"num_coefficients": self.num_coefficients, "num_points": NUM_POINTS, "num_pose_points": len(STABLE)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {"pose_map": self.pose_map.astype(np.float32), "components": self.components.astype(np.float32)}
        save_file(tensors, folder / "model.safetensors")

    @classmethod
    def fit(cls, people: list[np.ndarray], num_coefficients: int = 10, ridge: float = 50.0) -> MouthShape:
        """Learn the pose map and the components from meshes in window px, one (T, 468, 2) array per person.

        Each person weighs the same, however many frames there are.
        """
        centred = [_centred(points) for points in people]
        weights = np.concatenate([np.full(len(pose), 1.0 / len(pose)) for pose, _ in centred])[:, None]
        pose = np.concatenate([pose for pose, _ in centred]).astype(np.float64)
        mouth = np.concatenate([mouth for _, mouth in centred]).astype(np.float64)
        scale = len(people) / weights.sum()
        gram = (pose * weights).T @ pose * scale + ridge / 100.0 * np.eye(pose.shape[1])
        pose_map = np.linalg.solve(gram, (pose * weights).T @ mouth * scale)
        rest = (mouth - pose @ pose_map) * np.sqrt(weights / weights.sum())
        _, singular, directions = np.linalg.svd(rest, full_matrices=False)
        components = singular[:num_coefficients, None] * directions[:num_coefficients]
        components *= _opening_sign(components)[:, None]
        return cls(pose_map.astype(np.float32), components.astype(np.float32))

    def neutral(self, points: np.ndarray) -> Neutral:
        """The resting mouth of a person: the median over frames. ``points``: (T, 468, 2) window px."""
        return Neutral(np.median(points[:, SHAPE_POINTS], axis=0), np.median(points[:, STABLE], axis=0))

    def rested(self, neutral: Neutral) -> Neutral:
        """A neutral mouth that is no further open than resting mouths are.

        For pictures in which nobody speaks: the median of a still smile is the smile. The lower lip and the jaw follow
        the first component, which opens and closes the mouth.
        """
        excess = float(mouth_opening(neutral.mouth[None])[0]) - RESTING_OPENING_PX
        closing = self.components[0].reshape(NUM_POINTS, 2)
        amount = max(0.0, excess) / float(mouth_opening(closing[None])[0])
        return Neutral((neutral.mouth - amount * closing).astype(neutral.mouth.dtype), neutral.pose)

    def base(self, neutral: Neutral, points: np.ndarray) -> np.ndarray:
        """Where the resting mouth lies at each frame's head pose. ``points``: (T, 468, 2) -> (T, P, 2) window px."""
        turned = (points[:, STABLE] - neutral.pose).reshape(len(points), -1) @ self.pose_map
        return (neutral.mouth + turned.reshape(-1, NUM_POINTS, 2)).astype(np.float32)

    def encode(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Coefficients (T, K), about unit variance, of meshes (T, 468, 2) relative to ``base`` (T, P, 2)."""
        offset = (points[:, SHAPE_POINTS] - base).reshape(len(points), -1)
        return (offset @ (self.components / (self.components**2).sum(1, keepdims=True)).T).astype(np.float32)

    def decode(self, coefficients: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Lip and jaw points (T, P, 2) in window px of coefficients (T, K)."""
        return base + (coefficients @ self.components).reshape(-1, NUM_POINTS, 2)

    def parted(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Keep lips from being pressed into each other, as amplified shapes of closed mouths would.

        Args:
            points: lips and jaw (T, P, 2), window px.
            base: the resting mouth at the same frames.

        Returns:
            The points, where the gap is smaller than that of closed lips opened again along the first component.
        """
        missing = np.maximum(0.0, CLOSED_PART * mouth_opening(base) - mouth_opening(points))
        opening = self.components[0].reshape(NUM_POINTS, 2)
        amount = missing / float(mouth_opening(opening[None])[0])
        return (points + amount[:, None, None] * opening).astype(points.dtype)

    def closed(self, points: np.ndarray, base: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Close the lips along the first component, as far as pressed lips are closed.

        Args:
            points: lips and jaw (T, P, 2), window px.
            base: the resting mouth at the same frames.
            amount: how far (T,), 0 = as they are, 1 = closed.

        Returns:
            The points; lips that are closed already stay as they are.
        """
        excess = np.maximum(0.0, mouth_opening(points) - CLOSED_PART * mouth_opening(base))
        opening = self.components[0].reshape(NUM_POINTS, 2)
        moved = amount * excess / float(mouth_opening(opening[None])[0])
        return (points - moved[:, None, None] * opening).astype(points.dtype)

    @staticmethod
    def sketch(shape: np.ndarray) -> np.ndarray:
        """Draw mouth shapes as soft maps that the generator is conditioned on.

        Args:
            shape: lip and jaw points (T, P, 2) in window px.

        Returns:
            uint8 (T, 40, 40, 3): coverage of the outer lips, of the opening between the lips, and of the face above the
            jaw line. The area filter keeps sub-pixel positions as grey levels.
        """
        return np.stack([_draw(points) for points in shape])


def _centred(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pose, mouth = points[:, STABLE].astype(np.float32), points[:, SHAPE_POINTS].astype(np.float32)
    return (
        (pose - np.median(pose, 0)).reshape(len(points), -1),
        (mouth - np.median(mouth, 0)).reshape(len(points), -1),
    )


def _opening_sign(components: np.ndarray) -> np.ndarray:
    """+1 or -1 per component such that a positive coefficient opens the mouth."""
    opening = mouth_opening(components.reshape(-1, NUM_POINTS, 2))
    return np.where(opening < 0, -1.0, 1.0)


def mouth_opening(shape: np.ndarray) -> np.ndarray:
    """Vertical gap between the inner lips (T,) in window px, of lip and jaw points (T, P, 2)."""
    return shape[:, _LOWER_INNER, 1].mean(1) - shape[:, _UPPER_INNER, 1].mean(1)


def _draw(points: np.ndarray) -> np.ndarray:
    jaw = points[_JAW]
    face = np.concatenate([jaw, [[jaw[-1, 0], 0.0], [jaw[0, 0], 0.0]]])
    maps = np.zeros((3, WINDOW_SIZE, WINDOW_SIZE), np.uint8)
    for canvas, polygon in zip(maps, (points[_OUTER], _opening(points[_INNER]), face), strict=True):
        fixed = np.round(np.clip(polygon, -WINDOW_SIZE, 2 * WINDOW_SIZE) * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(canvas, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL_BITS)
    return cv2.resize(maps.transpose(1, 2, 0), (SKETCH_SIZE, SKETCH_SIZE), interpolation=cv2.INTER_AREA)


def _opening(inner: np.ndarray) -> np.ndarray:
    """The inner lip polygon with crossed lips closed: a negative gap would draw an opening where there is none."""
    closed = inner.copy()
    upper, lower = np.arange(1, 10), np.arange(19, 10, -1)
    middle = (inner[upper] + inner[lower]) / 2
    crossed = inner[upper, 1] > inner[lower, 1]
    closed[upper[crossed]] = middle[crossed]
    closed[lower[crossed]] = middle[crossed]
    return closed
