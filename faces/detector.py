"""Face boxes and the 468-point face mesh, by MediaPipe's networks run in OpenVINO.

Networks (Apache-2.0, bundled under ``pretrained/faces``):
    BlazeFace short range and full range (sparse): Bazarevsky et al., 2019, https://arxiv.org/abs/1907.05047
    Face mesh: Kartynnik et al., 2019, https://arxiv.org/abs/1907.06724
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import openvino

from utils.network_cache import cache_file, compiled_network

NMS_IOU = 0.3
ROI_SCALE = 1.5  # MediaPipe's margin around the detector's box for the mesh network
MESH_POINTS = 468
_SURE_SCORE = 0.85  # a candidate below it may be a pattern on a shirt: the mesh has to see a face in it, too
_LEAST_PRESENCE = 0.5  # 0..1, the mesh network's certainty from which it does
_RIGHT_EYE_CORNER, _LEFT_EYE_CORNER = 33, 263  # mesh indices, image left and image right


@dataclass(frozen=True)
class Detection:
    """A face box. ``box``: x0, y0, x1, y1 px; ``keypoints`` (6, 2) px: eyes (image left first), nose, mouth, ears."""

    box: np.ndarray
    score: float
    keypoints: np.ndarray


@dataclass(frozen=True)
class Roi:
    """A rotated square in the image: centre and side in px, angle in radians (clockwise in image coordinates)."""

    cx: float
    cy: float
    size: float
    angle: float


def _compile(path: Path) -> openvino.CompiledModel:
    """A network for one thread, kept in the user's cache folder, which saves most of the start."""
    if not path.is_file():
        raise FileNotFoundError(f"The face network {path} is missing; restore the folder from the repository.")
    # Single precision: where the CPU has bfloat16 it would be taken by itself, and move the points by a pixel.
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    file = cache_file("faces", path.stem, settings, contents=[path.read_bytes()])
    return compiled_network(settings, lambda: path, file)


def _anchors(input_size: int, layers: list[tuple[int, int]]) -> np.ndarray:
    """Anchor centres of a single-shot detector, (N, 2) in [0, 1]; ``layers``: (stride, anchors per cell)."""
    centres = []
    for stride, repeats in layers:
        cells = (np.arange(input_size // stride) + 0.5) * stride / input_size
        grid = np.stack(np.meshgrid(cells, cells), axis=-1).reshape(-1, 1, 2)
        centres.append(np.repeat(grid, repeats, axis=1).reshape(-1, 2))
    return np.concatenate(centres).astype(np.float32)


def _letterbox(image: np.ndarray, size: int) -> tuple[np.ndarray, float, float, float]:
    """Fit an image into a square; returns the square and scale, left, top of the picture within it."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    resized = cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - resized.shape[0]) // 2, (size - resized.shape[1]) // 2
    square[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    return square, scale, left, top


class _BlazeFace:
    """One BlazeFace network with its anchors: image in, raw candidates out."""

    def __init__(self, path: Path, input_size: int, layers: list[tuple[int, int]]):
        self._model = _compile(path)
        self._request = self._model.create_infer_request()
        self._size = input_size
        self._anchors = _anchors(input_size, layers)

    def candidates(self, image: np.ndarray, min_score: float) -> list[Detection]:
        """Candidates above the score, not yet suppressed. ``image``: uint8 RGB (H, W, 3)."""
        square, scale, left, top = _letterbox(image, self._size)
        self._request.infer([square[None].astype(np.float32) / 127.5 - 1.0])
        raw, logits = (self._request.get_output_tensor(i).data[0] for i in range(2))
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits[:, 0], -80.0, 80.0)))
        keep = np.flatnonzero(scores > min_score)
        points = raw[keep].reshape(-1, 8, 2).copy()
        points[:, [0, *range(2, 8)]] += self._anchors[keep, None] * self._size
        offset = np.array([left, top], np.float32)
        found = []
        for point, score in zip(points, scores[keep], strict=True):
            centre, half = point[0], point[1] / 2
            corners = (np.stack([centre - half, centre + half]) - offset) / scale
            if np.all(corners[1] > corners[0]):
                found.append(Detection(corners.reshape(4), float(score), (point[2:] - offset) / scale))
        return found


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes (x0, y0, x1, y1)."""
    inner = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    overlap = float(np.prod(np.clip(inner, 0, None)))
    union = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - overlap
    return overlap / union if union > 0 else 0.0


def _merge(cluster: list[Detection]) -> Detection:
    """Score-weighted mean of overlapping candidates, as MediaPipe does; steadier than the best one alone."""
    weights = np.array([d.score for d in cluster], np.float32)
    weights /= weights.sum()
    box = np.tensordot(weights, np.stack([d.box for d in cluster]), 1)
    keypoints = np.tensordot(weights, np.stack([d.keypoints for d in cluster]), 1)
    return Detection(box, cluster[0].score, keypoints)


class FaceDetector:
    """Finds faces from full-frame close-ups (short-range network) down to about 5 % of the picture (full range).

    What the detector is not sure of counts only when the mesh network sees a face there as well.

    Args:
        model_dir: folder with the .tflite files.
        min_score: candidates at or below this probability are dropped.

    Attributes:
        side: px, longer side of the reduced picture in which it is to look for faces.
    """

    side = 192

    def __init__(self, model_dir: Path, min_score: float = 0.5):
        self.min_score = min_score
        self._networks = [
            _BlazeFace(model_dir / "face_detection_full_range_sparse.tflite", 192, [(4, 1)]),
            _BlazeFace(model_dir / "face_detection_short_range.tflite", 128, [(8, 2), (16, 6)]),
        ]
        self._mesh = FaceMesh(model_dir)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Faces of an RGB uint8 image (H, W, 3), best score first, in the image's pixels.

        Lying faces are found as they are. Where it is not sure of one, the picture is looked at upside down as well:
        a face that stands on its head scores less, and is taken for one that does not.
        """
        found = self._found(image)
        if found and found[0].score >= _SURE_SCORE:
            return found
        turned = np.ascontiguousarray(image[::-1, ::-1])
        other = [face for face in self._found(turned) if self._confirmed(turned, face)]
        if not other or (found and found[0].score >= other[0].score):
            return found
        return [_turned_back(face, image.shape[1], image.shape[0]) for face in other]

    def _found(self, image: np.ndarray) -> list[Detection]:
        left = sorted(
            (d for net in self._networks for d in net.candidates(image, self.min_score)), key=lambda d: -d.score
        )
        kept = []
        while left:
            cluster = [d for d in left if iou(left[0].box, d.box) > NMS_IOU]
            left = [d for d in left if iou(left[0].box, d.box) <= NMS_IOU]
            kept.append(_merge(cluster or left[:1]))
        return [face for face in kept if face.score >= _SURE_SCORE or self._confirmed(image, face)]

    def _confirmed(self, image: np.ndarray, face: Detection) -> bool:
        return self._mesh(image, roi_from_detection(face))[1] >= _LEAST_PRESENCE


def _turned_back(face: Detection, width: int, height: int) -> Detection:
    """A face of a picture that was turned by 180 degrees, in the picture as it was."""
    corner = np.array([width, height], np.float32)
    x0, y0, x1, y1 = face.box
    box = np.array([width - x1, height - y1, width - x0, height - y0], face.box.dtype)
    return Detection(box, face.score, corner - face.keypoints)


def roi_from_detection(detection: Detection) -> Roi:
    """The square that the mesh network wants: the box enlarged 1.5 times, turned so that the eyes are level."""
    x0, y0, x1, y1 = (float(v) for v in detection.box)
    eyes = detection.keypoints[1] - detection.keypoints[0]
    size = ROI_SCALE * max(x1 - x0, y1 - y0)
    return Roi((x0 + x1) / 2, (y0 + y1) / 2, size, math.atan2(float(eyes[1]), float(eyes[0])))


def roi_from_mesh(points: np.ndarray) -> Roi:
    """The next frame's square from this frame's mesh (468, 3): cheaper and steadier than detecting again."""
    eyes = points[_LEFT_EYE_CORNER, :2] - points[_RIGHT_EYE_CORNER, :2]
    angle = math.atan2(float(eyes[1]), float(eyes[0]))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], np.float32)
    upright = points[:, :2] @ turn.T
    low, high = upright.min(0), upright.max(0)
    cx, cy = ((low + high) / 2) @ turn
    return Roi(float(cx), float(cy), float(ROI_SCALE * (high - low).max()), angle)


class FaceMesh:
    """The 468-point mesh of one face. Points are in image px; z has the same scale, smaller is nearer."""

    INPUT_SIZE = 192

    def __init__(self, model_dir: Path):
        self._request = _compile(model_dir / "face_landmark.tflite").create_infer_request()

    def __call__(self, image: np.ndarray, roi: Roi) -> tuple[np.ndarray, float]:
        """Mesh of the face in ``roi``.

        Args:
            image: uint8 RGB (H, W, 3).
            roi: where the face is.

        Returns:
            points float32 (468, 3) in image px, and the probability (0..1) that a face is there.
        """
        matrix = self._to_input(roi)
        patch = cv2.warpAffine(image, matrix, (self.INPUT_SIZE,) * 2, flags=cv2.INTER_LINEAR)
        self._request.infer([patch[None].astype(np.float32) / 255.0])
        outputs = [self._request.get_output_tensor(i).data.reshape(-1) for i in range(2)]
        points = outputs[0].reshape(MESH_POINTS, 3).astype(np.float32)
        inverse = cv2.invertAffineTransform(matrix)
        points[:, :2] = points[:, :2] @ inverse[:, :2].T + inverse[:, 2]
        points[:, 2] *= roi.size / self.INPUT_SIZE
        return points, float(1.0 / (1.0 + np.exp(-np.clip(outputs[1][0], -80.0, 80.0))))

    def _to_input(self, roi: Roi) -> np.ndarray:
        scale = self.INPUT_SIZE / max(roi.size, 1e-3)
        cos, sin = math.cos(roi.angle) * scale, math.sin(roi.angle) * scale
        half = self.INPUT_SIZE / 2
        return np.array(
            [[cos, sin, half - cos * roi.cx - sin * roi.cy], [-sin, cos, half + sin * roi.cx - cos * roi.cy]],
            np.float32,
        )
