"""Mouth shape as ten numbers: lips and jaw of the aligned mesh, relative to the person's resting mouth and head pose.

The speech part of the model predicts these coefficients, the generator draws what they say. For a frame, the *base* is
where lips and jaw would lie if the person's closed mouth were seen at this frame's head pose: the mouth is turned in
space, with the depth that lips and jaws have, and a small linear map of the angles adds what learned meshes do besides.
What is left is speech and expression; its principal components are the coefficients.

The pose is the three angles of the head, smoothed in time, and turning the head does not part the base's lips: in a
learned mesh every point, also those of nose and eyes, follows the jaw a little, and a map from such points copies half
of the old mouth's movement into the base.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load_file, save_file

from faces.alignment import JAW, LIPS_INNER, LIPS_OUTER, aligned_projection
from faces.window import MOUTH_WINDOW, WINDOW_SIZE
from utils.helpers import InputError

SHAPE_POINTS = LIPS_OUTER + LIPS_INNER + JAW
NUM_POINTS = len(SHAPE_POINTS)
SKETCH_SIZE = 40
CLOSED_SHARE = 0.1  # of a person's frames, those with the smallest gap, show the mouth at rest
RESTING_OPENING_PX = 3.7  # gap of the mesh's inner lips at rest: mean of 17 people
WIDEST_REST_PX = 63.0  # width of closed mouths: 95 of 100 people's are narrower
_LEAST_WIDTH_PX = 0.5  # a basis whose mouths vary less in width does not know how
ANGLE_UNIT_DEG = 10.0  # of the pose map
_NEARLY_CLOSED = 0.3  # of a person's frames, those that tell where a turned head's mouth lies
_DEPTH_RIDGE, _POSE_RIDGE = 1e-4, 5e-3  # pull of depth and pose map towards zero
CLOSED_PART = 0.75  # gap of pressed lips in parts of the resting mouth's
_SUBPIXEL_BITS = 4  # cv2.fillPoly takes fixed-point coordinates; 1/16 px keeps small openings
_OUTER = slice(0, len(LIPS_OUTER))
_INNER = slice(_OUTER.stop, _OUTER.stop + len(LIPS_INNER))
JAW_PART = slice(_INNER.stop, NUM_POINTS)
_UPPER_INNER = [_INNER.start + i for i in (4, 5, 6)]
_LOWER_INNER = [_INNER.start + i for i in (16, 15, 14)]
_UPPER_PAIRED = [_INNER.start + i for i in range(1, 10)]  # inner lips from corner to corner, and what lies below them
_LEFT, _RIGHT = 0, len(LIPS_OUTER) // 2  # corners of the mouth, as they lie in the picture
_LOWER_PAIRED = [_INNER.start + i for i in range(19, 10, -1)]
_CONTOUR = len(LIPS_OUTER)  # points of each contour of the lips, from the left corner over the upper lip
_OTHER_SIDE = np.r_[
    [(_CONTOUR // 2 - i) % _CONTOUR for i in range(_CONTOUR)],
    [_CONTOUR + (_CONTOUR // 2 - i) % _CONTOUR for i in range(_CONTOUR)],
    np.arange(NUM_POINTS)[JAW_PART][::-1],
]  # what lies opposite, left and right


@dataclass(frozen=True)
class Neutral:
    """A person's resting mouth: lip and jaw points (P, 2), window px, and yaw, pitch and roll (3,) there, degrees."""

    mouth: np.ndarray
    pose: np.ndarray


@dataclass(frozen=True)
class MouthShape:
    """Linear model of mouth shapes.

    Attributes:
        depth: (P,) z of lips and jaw on the canonical face, px; it grows away from who looks.
        pose_map: (3, P*2) what is added for each 10 degrees of yaw, pitch and roll, window px.
        components: (K, P*2) principal directions in window px per unit coefficient.
    """

    depth: np.ndarray
    pose_map: np.ndarray
    components: np.ndarray

    @property
    def num_coefficients(self) -> int:
        return self.components.shape[0]

    @cached_property
    def opening_move(self) -> np.ndarray:
        """How lips and jaw move (P, 2) on average where the gap between the lips grows by a pixel.

        That is the regression of the points on the gap; coefficients have variance one and are independent. The first
        component alone would not do: it may be what the pose of the head left.
        """
        return self._move(mouth_opening(self._moves))

    @cached_property
    def width_move(self) -> np.ndarray:
        """The same (P, 2) where the mouth grows by a pixel in width; the gap between the lips and the jaw stay.

        Zero where the basis holds no such movement.
        """
        gap, width = mouth_opening(self._moves), mouth_width(self._moves)
        alone = width - gap * (gap @ width) / (gap @ gap)
        if np.linalg.norm(alone) < _LEAST_WIDTH_PX:
            return np.zeros_like(self._moves[0])
        move = self._move(alone)
        move[JAW_PART] = 0.0
        return move / float(move[_RIGHT, 0] - move[_LEFT, 0])

    @property
    def _moves(self) -> np.ndarray:
        return self.components.reshape(-1, NUM_POINTS, 2)

    def _move(self, told: np.ndarray) -> np.ndarray:
        """Regression (P, 2) of the points on what the components tell (K,)."""
        return np.einsum("k,kpc->pc", told, self._moves) / np.square(told).sum()

    @classmethod
    def load(cls, folder: Path) -> MouthShape:
        """Read ``config.json`` and ``model.safetensors``.

        Raises:
            InputError: the folder lacks them, their sizes disagree, or they are of an older version.
        """
        if not (Path(folder) / "config.json").is_file() or not (Path(folder) / "model.safetensors").is_file():
            raise InputError(f"There are no mouth shapes in {folder}: it needs config.json and model.safetensors.")
        config = json.loads((Path(folder) / "config.json").read_text())
        tensors = load_file(Path(folder) / "model.safetensors")
        expected = (config["num_coefficients"], config["num_points"] * 2)
        if tensors["components"].shape != expected:
            raise InputError(f"{folder}: components are {tensors['components'].shape}, config says {expected}.")
        for name, needed in (("depth", (config["num_points"],)), ("pose_map", (3, expected[1]))):
            if name not in tensors:
                raise InputError(f"{folder} is of an older version: remove it and run data/preprocess.py again.")
            if tensors[name].shape != needed:
                raise InputError(f"{folder}: {name} is {tensors[name].shape}, {needed} is needed.")
        return cls(tensors["depth"], tensors["pose_map"], tensors["components"])

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        config = {"num_coefficients": self.num_coefficients, "num_points": NUM_POINTS}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        tensors = {name: getattr(self, name).astype(np.float32) for name in ("depth", "pose_map", "components")}
        save_file(tensors, folder / "model.safetensors")

    @classmethod
    def fit(cls, people: list[tuple[np.ndarray, np.ndarray]], num_coefficients: int = 10) -> MouthShape:
        """Learn the base and the components. Each person weighs the same, however many frames there are.

        Args:
            people: of each person meshes (T, 468, 2) in window px and poses (T, 3) in degrees.
            num_coefficients: numbers of a mouth shape.
        """
        shape = cls(*fit_base(people), np.zeros((num_coefficients, 2 * NUM_POINTS), np.float32))
        weights = np.concatenate([np.full(len(points), 1.0 / len(points)) for points, _ in people])[:, None]
        rest = np.concatenate([shape._from_rest(*one) for one in people]).astype(np.float64)
        rest = (rest - (rest * weights).sum(0) / weights.sum()) * np.sqrt(weights / weights.sum())
        _, singular, directions = np.linalg.svd(rest, full_matrices=False)
        components = singular[:num_coefficients, None] * directions[:num_coefficients]
        components *= _opening_sign(components)[:, None]
        return replace(shape, components=components.astype(np.float32))

    def _from_rest(self, points: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """Of one person, how lips and jaw differ from the resting mouth (T, P*2)."""
        return (points[:, SHAPE_POINTS] - self.base(self.neutral(points, pose), pose)).reshape(len(points), -1)

    @staticmethod
    def neutral(points: np.ndarray, pose: np.ndarray) -> Neutral:
        """The resting mouth of a person: the median of the tenth of the frames in which the lips are closest.

        Args:
            points: (T, 468, 2) window px.
            pose: (T, 3) yaw, pitch and roll, degrees.
        """
        return MouthShape.neutral_of_lips(points[:, SHAPE_POINTS], pose)

    @staticmethod
    def neutral_of_lips(mouth: np.ndarray, pose: np.ndarray) -> Neutral:
        """The same of lips and jaw (T, P, 2) alone."""
        closed = np.argsort(mouth_opening(mouth), kind="stable")[: max(1, round(CLOSED_SHARE * len(mouth)))]
        return Neutral(np.median(mouth[closed], axis=0), np.median(pose[closed], axis=0))

    def rested(self, neutral: Neutral) -> Neutral:
        """A neutral mouth that is no further open than resting mouths are, and no wider than nearly all of them.

        For pictures in which nobody speaks: a still smile is never closed or at rest. Lips and jaw move as they do when
        people open and close their mouths, and the corners as they do when people purse their lips.
        """
        open_by = float(mouth_opening(neutral.mouth[None])[0]) - RESTING_OPENING_PX
        mouth = neutral.mouth - max(0.0, open_by) * self.opening_move
        wide_by = float(np.linalg.norm(mouth[_RIGHT] - mouth[_LEFT])) - WIDEST_REST_PX
        return Neutral((mouth - max(0.0, wide_by) * self.width_move).astype(neutral.mouth.dtype), neutral.pose)

    def base(self, neutral: Neutral, pose: np.ndarray) -> np.ndarray:
        """Where the resting mouth lies at each frame's head pose (T, 3), degrees -> (T, P, 2) window px."""
        seen, per_depth = turned(neutral, pose)
        besides = (pose - neutral.pose) / ANGLE_UNIT_DEG @ self.pose_map
        return (seen + per_depth[:, None] * self.depth[:, None] + besides.reshape(seen.shape)).astype(np.float32)

    def encode(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        """Coefficients (T, K), about unit variance, of meshes (T, 468, 2) relative to ``base`` (T, P, 2)."""
        return self.encode_lips(points[:, SHAPE_POINTS], base)

    def encode_lips(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        """The same of lips and jaw (T, P, 2) alone."""
        offset = (points - base).reshape(len(points), -1)
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
            The points, where the gap is smaller than that of closed lips opened again as people open them.
        """
        missing = np.maximum(0.0, CLOSED_PART * mouth_opening(base) - mouth_opening(points))
        return (points + missing[:, None, None] * self.opening_move).astype(points.dtype)

    def scaled(self, points: np.ndarray, base: np.ndarray, opening: float, width: float) -> np.ndarray:
        """Let lips open so many times further from rest, and grow so many times wider.

        Args:
            points: lips and jaw (T, P, 2), window px.
            base: the resting mouth at the same frames.
            opening, width: factors.
        """
        gap = (opening - 1) * (mouth_opening(points) - mouth_opening(base))
        wide = (width - 1) * (mouth_width(points) - mouth_width(base))
        moved = gap[:, None, None] * self.opening_move + wide[:, None, None] * self.width_move
        return (points + moved).astype(points.dtype)

    def closed(self, points: np.ndarray, base: np.ndarray, amount: np.ndarray) -> np.ndarray:
        """Close the lips as people close them, as far as pressed lips are closed.

        Args:
            points: lips and jaw (T, P, 2), window px.
            base: the resting mouth at the same frames.
            amount: how far (T,), 0 = as they are, 1 = closed.

        Returns:
            The points; lips that are closed already stay as they are.
        """
        excess = np.maximum(0.0, mouth_opening(points) - CLOSED_PART * mouth_opening(base))
        return (points - (amount * excess)[:, None, None] * self.opening_move).astype(points.dtype)

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


def turned(neutral: Neutral, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A resting mouth at other poses (T, 3), degrees: where it would lie were it flat, and what depth adds.

    Returns:
        (T, P, 2) window px at depth 0, and (T, 2) px that each px of depth adds to that.
    """
    (matrices, shifts), (own, here) = aligned_projection(pose), (x[0] for x in aligned_projection(neutral.pose[None]))
    flat = matrices[:, :, :2] @ np.linalg.inv(own[:, :2])
    corner = np.asarray(MOUTH_WINDOW.origin)
    seen = np.einsum("tij,pj->tpi", flat, neutral.mouth - here + corner) + (shifts - corner)[:, None]
    return seen, matrices[:, :, 2] - flat @ own[:, 2]


def fit_base(people: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Depth (P,) and pose map (3, P*2) of lips and jaw; see `MouthShape`, and `MouthShape.fit` for the argument.

    Frames with closed lips tell, so that nothing stands for speech where somebody nods while speaking.
    """
    known = []
    for points, pose in people:
        mouth, neutral = points[:, SHAPE_POINTS].astype(np.float64), MouthShape.neutral(points, pose)
        gap = mouth_opening(mouth)
        closed = gap <= np.quantile(gap, _NEARLY_CLOSED)
        seen, per_depth = turned(neutral, pose[closed])
        weight = 1 / np.sqrt(closed.sum())
        known.append((weight * (mouth[closed] - seen), weight * per_depth, weight * (pose[closed] - neutral.pose)))
    left, per_depth, angles = (np.concatenate(x) for x in zip(*known, strict=True))
    pull = _DEPTH_RIDGE * len(people)
    depth = _mirrored(np.einsum("ti,tpi->p", per_depth, left) / (np.square(per_depth).sum() + pull))
    left = (left - per_depth[:, None] * depth[:, None]).reshape(len(left), -1)
    angles = angles / ANGLE_UNIT_DEG
    gram = angles.T @ angles + _POSE_RIDGE * len(people) * np.eye(3)
    return depth.astype(np.float32), _paired(np.linalg.solve(gram, angles.T @ left)).astype(np.float32)


def _paired(pose_map: np.ndarray) -> np.ndarray:
    """A pose map (3, P*2) that moves closed inner lips together."""
    moves = pose_map.reshape(len(pose_map), NUM_POINTS, 2).copy()
    together = (moves[:, _UPPER_PAIRED] + moves[:, _LOWER_PAIRED]) / 2
    moves[:, _UPPER_PAIRED] = moves[:, _LOWER_PAIRED] = together
    return moves.reshape(len(pose_map), -1)


def _mirrored(depth: np.ndarray) -> np.ndarray:
    """Depth (P,) made the same left and right, and on both inner lips."""
    depth = (depth + depth[_OTHER_SIDE]) / 2
    depth[_UPPER_PAIRED] = depth[_LOWER_PAIRED] = (depth[_UPPER_PAIRED] + depth[_LOWER_PAIRED]) / 2
    return depth


def _opening_sign(components: np.ndarray) -> np.ndarray:
    """+1 or -1 per component such that a positive coefficient opens the mouth."""
    opening = mouth_opening(components.reshape(-1, NUM_POINTS, 2))
    return np.where(opening < 0, -1.0, 1.0)


def mouth_opening(shape: np.ndarray) -> np.ndarray:
    """Vertical gap between the inner lips (T,) in window px, of lip and jaw points (T, P, 2)."""
    return shape[:, _LOWER_INNER, 1].mean(1) - shape[:, _UPPER_INNER, 1].mean(1)


def mouth_width(shape: np.ndarray) -> np.ndarray:
    """Distance of the corners of the mouth along the window (T,) in px, of lip and jaw points (T, P, 2)."""
    return shape[:, _RIGHT, 0] - shape[:, _LEFT, 0]


def _draw(points: np.ndarray) -> np.ndarray:
    jaw = points[JAW_PART]
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
