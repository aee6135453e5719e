"""What is read off a video: its face followed once, mouth windows and face chips cut out, all metrics share it.

The real video is followed first. Where its face lies (`Place`) also says where to cut in every other version of the
clip, so that pixels correspond; the mesh is found anew in each version, since that is what its lips are measured by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import cv2
import numpy as np
from scipy.signal import medfilt

from data.preprocess import FPS, FaceTrack, align_track, face_tracker, face_tracks
from evaluation.features import face_chip
from faces.alignment import EYE_CORNERS
from faces.choice import FaceChoice
from faces.footage import Frame25, frames_at_25
from faces.tracker import FaceFrame, box_of
from faces.window import MOUTH_WINDOW
from models.syncnet import PUBLIC_SIDE
from utils.config import Config
from utils.helpers import InputError
from video_processor import VideoReader

MIN_FRAMES = 24  # fewer leave too few shifts to search for the offset
MAX_LOST = 0.2  # share of frames in which the face may be lost
CHIPS = 2  # face chips from each half of a clip

# The crop of joonson/syncnet_python (run_pipeline.py).
_PUBLIC_SCALE = 0.4
_PUBLIC_MEDIAN = 13
_PUBLIC_FILL = 110


@dataclass(frozen=True, eq=False)
class Place:
    """Where the face of a real video lies: frames at 25 per second from number `first` on.

    Attributes:
        first: number of the first frame.
        size: width and height of the video, px.
        meshes: (T, 468, 3) px.
        matrices: (T, 2, 3), video px -> canonical px, smoothed.
    """

    first: int
    size: tuple[int, int]
    meshes: np.ndarray
    matrices: np.ndarray

    def __len__(self) -> int:
        return len(self.meshes)

    @property
    def choice(self) -> FaceChoice:
        """The same face in another version of the video."""
        x, y = self.meshes[0][EYE_CORNERS, :2].mean(axis=0)
        return FaceChoice("point", point=(float(x), float(y)), time=self.first / FPS)


@dataclass(frozen=True, eq=False)
class Reading:
    """One version of a clip, frames at 25 per second.

    Attributes:
        first: number of the first frame in the video.
        windows: uint8 RGB (T, 160, 160, 3), cut where the real video's mouth window is.
        points: (T, 468, 2) its own mesh in window px, smoothed as in training.
        pose: (T, 3) yaw, pitch and roll, degrees, smoothed.
        early, late: uint8 RGB (CHIPS, 150, 150, 3), face chips from the first and the second half.
        public: uint8 BGR (T, 224, 224, 3), the public SyncNet's crop; empty unless asked for.
        lost: in how many frames no face was found (the mesh before it is taken).
    """

    first: int
    windows: np.ndarray
    points: np.ndarray
    pose: np.ndarray
    early: np.ndarray
    late: np.ndarray
    public: np.ndarray
    lost: int

    def __len__(self) -> int:
        return len(self.windows)

    def cut(self, frames: int) -> Reading:
        """Only the first frames."""
        return replace(
            self,
            windows=self.windows[:frames],
            points=self.points[:frames],
            pose=self.pose[:frames],
            public=self.public[:frames],
        )


def find_place(video: Path, config: Config, seconds: float = math.inf) -> Place:
    """Follow the face of a real video; of several runs of frames with a usable face the longest.

    Args:
        video: the real video.
        config: of the faces.
        seconds: of the video that are looked at.

    Raises:
        InputError: the video cannot be read, or the longest run is shorter than about a second.
    """
    with VideoReader(video) as reader:
        size = (reader.info.width, reader.info.height)
        frames = takewhile(lambda frame: frame.time < seconds, frames_at_25(reader))
        runs = face_tracks(_without_pictures(face_tracker(config).follow(frames)), config)
        best = max(runs, key=lambda run: len(run.points), default=None)
    if best is None or len(best.points) < MIN_FRAMES:
        raise InputError(f"{video.name} shows no usable face for {MIN_FRAMES} frames on end; leave it out.")
    return Place(best.first, size, np.stack(best.points), align_track(best, len(best.points)).matrices)


def look(video: Path, config: Config) -> Reading:
    """Read a short video that is compared with no other: in one pass, without face chips.

    Raises:
        InputError: the video cannot be read, or its longest run of frames with a usable face is shorter than a second.
    """
    with VideoReader(video) as reader:
        runs = face_tracks(face_tracker(config).follow(frames_at_25(reader)), config)
        best = max(runs, key=lambda run: len(run.points), default=None)
    if best is None or len(best.points) < MIN_FRAMES:
        raise InputError(f"{video.name} shows no usable face for {MIN_FRAMES} frames on end; leave it out.")
    seen = align_track(best, len(best.points))
    nothing = np.empty((0, 0, 0, 3), np.uint8)
    return Reading(best.first, np.stack([*seen.windows()]), seen.points, seen.pose, nothing, nothing, nothing, lost=0)


def _without_pictures(faces: Iterable[FaceFrame]) -> Iterator[FaceFrame]:
    """The frames without their images, of which a long clip has more than fit into memory."""
    nothing = np.empty((0, 0, 3), np.uint8)
    return (replace(face, frame=Frame25(nothing, face.frame.time)) for face in faces)


def read(video: Path, place: Place, config: Config, public: bool = False) -> Reading:
    """Read one version of a clip.

    Args:
        video: the real video itself, or another version of it that shows the same frames at the same times; a
            different size is scaled.
        place: of the face in the real video.
        config: of the faces.
        public: also cut out what the public SyncNet sees.

    Raises:
        InputError: the video cannot be read, is too short, or its face is lost too often.
    """
    windows, meshes, crops = [], [], []
    chips: dict[int, np.ndarray] = {}
    wanted = _chip_frames(len(place))
    boxes = _public_boxes(place.meshes) if public else []
    with VideoReader(video) as reader:
        frames = scaled_to(frames_at_25(reader), place.size)
        for number, face in enumerate(face_tracker(config, place.choice).follow(frames)):
            index = number - place.first
            if not 0 <= index < len(place):
                continue
            image = face.frame.image
            windows.append(MOUTH_WINDOW.warp(image, place.matrices[index]))
            meshes.append(face.points)
            if index in wanted:
                chips[index] = face_chip(image, place.meshes[index])
            if public:
                crops.append(_public_crop(image, boxes[index]))
    (points, pose), lost = _window_points(meshes, video)
    early, late = ([chips[i] for i in half if i in chips] for half in (wanted[:CHIPS], wanted[CHIPS:]))
    return Reading(
        place.first, np.stack(windows), points, pose, np.array(early), np.array(late or early), np.array(crops), lost
    )


def scaled_to(frames: Iterable[Frame25], size: tuple[int, int]) -> Iterator[Frame25]:
    """Frames in a size (width, height), px; those that have it are passed on as they are."""
    for frame in frames:
        if frame.image.shape[1::-1] != size:
            frame = Frame25(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), frame.time)
        yield frame


def _window_points(
    meshes: list[np.ndarray | None], video: Path
) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """Smoothed meshes (T, 468, 2) in window px and poses (T, 3) in degrees, and how many were missing."""
    if len(meshes) < MIN_FRAMES:
        raise InputError(f"{video.name} has less than {MIN_FRAMES} frames of the real video's face; leave it out.")
    lost = sum(mesh is None for mesh in meshes)
    if lost > MAX_LOST * len(meshes):
        raise InputError(f"{video.name} lost its face in {lost} of {len(meshes)} frames; leave it out.")
    last = next(mesh for mesh in meshes if mesh is not None)
    filled = []
    for mesh in meshes:
        last = last if mesh is None else mesh
        filled.append(last)
    seen = align_track(FaceTrack(0, [], filled), len(filled))
    return (seen.points, seen.pose), lost


def _chip_frames(frames: int) -> list[int]:
    """Frames whose faces are described, of the first half and then of the second.

    None of the last sixth: results may end a little earlier than the real video.
    """
    places = (np.arange(2 * CHIPS) + 0.5) / (2 * CHIPS)
    return [int(i) for i in places * frames * 5 / 6]


def _public_boxes(meshes: np.ndarray) -> np.ndarray:
    """Half side and centre (T, 3) px of the face in each frame, median-filtered over time."""
    boxes = np.stack([box_of(mesh) for mesh in meshes])
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) / 2
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.stack([medfilt(values, _PUBLIC_MEDIAN) for values in (half, centre[:, 0], centre[:, 1])], axis=1)


def _public_crop(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The crop (224, 224, 3), BGR, that the public SyncNet was trained on: the face and half as much below it."""
    half, x, y = box
    pad = int(half * (1 + 2 * _PUBLIC_SCALE))
    padded = cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(_PUBLIC_FILL,) * 3)
    x, y = x + pad, y + pad
    rows = slice(int(y - half), int(y + half * (1 + 2 * _PUBLIC_SCALE)))
    columns = slice(int(x - half * (1 + _PUBLIC_SCALE)), int(x + half * (1 + _PUBLIC_SCALE)))
    crop = cv2.resize(padded[rows, columns], (PUBLIC_SIDE, PUBLIC_SIDE), interpolation=cv2.INTER_LINEAR)
    return crop[..., ::-1]
