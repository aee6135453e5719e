"""A video as capture of the mouth that is seen: lips and jaw of the mesh become the curves of a track; no sound."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from faces.choice import FaceChoice
from faces.detector import FaceDetector, FaceMesh
from faces.mouth_shape import SHAPE_POINTS, MouthShape
from faces.mouth_windows import MouthFrame, mouth_windows
from faces.usable import in_words
from faces.window import MOUTH_WINDOW
from pipeline.options import media_limits
from pipeline.seeing import Seeing
from pipeline.track import REST, SHAPES, Cue, Curves, Track, frame_times, joined, steady
from pipeline.tracks.assembling import LEAST_CUE_S, Moved, moved
from pipeline.tracks.mouths import OF_SHAPE
from pipeline.tracks.options import TrackOptions
from utils.config import Config
from utils.helpers import InputError
from video_processor import VideoReader, probe_video

_ROOT = Path(__file__).resolve().parent.parent.parent
_SEEN = "ABCDEF"  # shapes that lips and jaw alone tell apart
_SPREAD = 0.03  # of squared distances, over which a mouth is shared between shapes
_REST_S = 0.3  # lips that are closed for longer are at rest
_CLOSED = 0.06  # opening below which they are closed
_FEWEST = 12  # frames with a face, of which a resting mouth can be told
_ROUNDED = 0.9  # protrusion of a mouth as narrow as in "oo": from the front it is not seen


def capture(video: Path, config: Config, options: TrackOptions, face: str = "largest") -> Track:
    """The track of the mouth that a video shows.

    Args:
        video: the video; its sound is not heard.
        config: the configuration.
        options: choices.
        face: which face, as in `pipeline.Options`.

    Raises:
        InputError: the video cannot be used, is a still picture, or shows a usable face in too few frames.
    """
    options.check()
    limits = media_limits(config.media)
    info = probe_video(video, limits)
    if info.is_image:
        raise InputError("A still picture shows no movement: give a video, a sound or a text for a track.")
    seeing = _seeing(config, face)
    with VideoReader(video, limits) as reader:
        mouths = mouth_windows(seeing.tracker().follow(reader), seeing.usable(), lambda frame: None)
        times, lips, poses, lost = _seen(mouths)
    if len(times) < _FEWEST:
        raise InputError(f"The video shows a face that can be used in {len(times)} frames only: {in_words(lost)}.")
    basis = MouthShape.load(_ROOT / config.inference.weights_dir / "mouth_shape")
    base = basis.base(basis.neutral_of_lips(lips, poses), poses)
    shape = basis.encode_lips(lips, base)
    duration = float(info.duration or times[-1])
    at = frame_times(duration, options.fps)
    shape, there = _resampled(shape, times, at)
    notes = (f"Without a mouth that can be used: {in_words(lost)}.",) if lost else ()
    return seen_track(duration, shape, there, _usual_width(moved(shape, basis)), options, video.name, notes)


def _usual_width(seen: Moved) -> Moved:
    """The width relative to the person's usual one: the frames that show closed lips may show a smile as well."""
    return replace(seen, width=seen.width - np.median(seen.width))


def seen_track(
    duration: float,
    shape: np.ndarray,
    there: np.ndarray,
    seen: Moved,
    options: TrackOptions,
    source: str = "",
    notes: tuple[str, ...] = (),
) -> Track:
    """A track of what was seen.

    Args:
        duration: seconds.
        shape: mouth shape coefficients (F, K).
        there: (F,) in [0, 1], 0 where no mouth was seen, which then rests.
        seen: lips and jaw of the same frames.
        options: choices.
        source, notes: as in `Track`.
    """
    force = options.strength * there
    width = np.clip(force * seen.width, -1, 1)
    opening, jaw = (np.clip(force * values, 0, 1) for values in (seen.opening, seen.jaw))
    curves = (opening, width, np.clip(-_ROUNDED * width, 0, 1), jaw)
    weights = _weights(opening, width, options.fps)
    cues = steady(_cues(weights.argmax(axis=1), frame_times(duration, options.fps), duration), LEAST_CUE_S)
    return Track(
        duration, options, (), cues, weights.astype(np.float32), Curves(*(c.astype(np.float32) for c in curves)),
        shape.astype(np.float32), (), source, notes,
    )  # fmt: skip


def _seeing(config: Config, face: str) -> Seeing:
    models = _ROOT / config.faces.models_dir
    detector, mesh = FaceDetector(models, config.faces.min_detection_score), FaceMesh(models)
    choice, confidence = FaceChoice.parse(face), config.inference.min_confidence
    return Seeing(detector, mesh, None, config, MOUTH_WINDOW, choice, confidence)


def _seen(mouths: Iterable[MouthFrame]) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, int]]:
    """Times (T,), lips and jaw (T, P, 2) and poses (T, 3) of usable frames, and why others are none."""
    times, lips, poses = [], [], []
    lost: dict[str, int] = {}
    for mouth in mouths:
        if mouth.reason is not None:
            lost[mouth.reason] = lost.get(mouth.reason, 0) + 1
            continue
        times.append(mouth.time)
        lips.append(mouth.points[SHAPE_POINTS])
        poses.append(mouth.pose)
    return np.array(times), np.array(lips, np.float32), np.array(poses, np.float32), lost


def _resampled(shape: np.ndarray, times: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (F, K) at other times, and how surely a mouth is seen there (F,), in [0, 1]."""
    values = np.stack([np.interp(at, times, column) for column in shape.T], axis=1)
    step = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    away = np.abs(at[:, None] - times[_neighbours(times, at)]).min(axis=1)
    return values, np.clip(2 - away / (2 * step), 0, 1)


def _neighbours(times: np.ndarray, at: np.ndarray) -> np.ndarray:
    after = np.clip(np.searchsorted(times, at), 0, len(times) - 1)
    return np.stack([np.maximum(after - 1, 0), after], axis=1)


def _weights(opening: np.ndarray, width: np.ndarray, fps: float) -> np.ndarray:
    """Weights (F, 9) of Rhubarb's shapes by how near they are; long closed lips are at rest."""
    places = np.array([OF_SHAPE[shape][:2] for shape in _SEEN])
    here = np.stack([opening, width], axis=1)
    apart = np.square((here[:, None] - places) * (1.0, 0.6)).sum(axis=2)
    near = np.exp(-(apart - apart.min(axis=1, keepdims=True)) / _SPREAD)
    weights = np.zeros((len(opening), len(SHAPES)))
    weights[:, : len(_SEEN)] = near / near.sum(axis=1, keepdims=True)
    for first, last in _runs(opening < _CLOSED):
        shape = REST if last - first > _REST_S * fps else SHAPES.index("A")
        weights[first:last] = np.eye(len(SHAPES))[shape]
    return weights


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return list(zip(edges[::2], edges[1::2], strict=True))


def _cues(shapes: Sequence[int], times: np.ndarray, duration: float) -> tuple[Cue, ...]:
    ends = [*times[1:], max(duration, float(times[-1]))]
    return joined([Cue(SHAPES[s], float(a), float(b)) for s, a, b in zip(shapes, times, ends, strict=True)])
