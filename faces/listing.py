"""All faces of a video, shot by shot, for a person who wants to choose one of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from faces.choice import Track, link
from faces.detector import Detection, FaceDetector
from faces.shots import Picture, faces_in, with_cuts
from utils.pictures import picture_of

_LOOK_EVERY_S = 0.2  # seconds between two frames in which faces are looked for
_SEEN_TWICE = 2  # a face seen once in a longer shot is a mistake of the detector, or too short to be chosen
_TILE, _GAP, _CAPTION = 192, 8, 44  # px of the sheet
_COLUMNS = 6
_ROOM = 0.6  # of the face's box on each side, as seen on the sheet
_INK, _PAPER, _MARK = (40, 40, 40), (250, 250, 250), (0, 120, 60)


@dataclass(frozen=True)
class ListedFace:
    """A face in one shot.

    Attributes:
        shot: counts the shots from 1.
        start, end: first and last second at which it was seen.
        time: the second at which it is shown best (largest).
        box: (x0, y0, x1, y1) px of the upright picture at that time.
    """

    shot: int
    start: float
    end: float
    time: float
    box: np.ndarray

    @property
    def choice(self) -> str:
        """What `FaceChoice.parse` takes for this face."""
        x, y = (self.box[:2] + self.box[2:]) / 2
        return f"point:{x:.0f},{y:.0f}@{self.time:.2f}"

    @property
    def size(self) -> int:
        """Height of the face, px."""
        return round(float(self.box[3] - self.box[1]))


def find_faces(pictures: Iterable[Picture], detector: FaceDetector, cut_threshold: float) -> Iterator[ListedFace]:
    """Look through a video and yield the faces of each shot, from left to right.

    Args:
        pictures: frames in order of time.
        detector: finds faces.
        cut_threshold: see `with_cuts`.
    """
    shot, sightings, next_look = 1, [], 0.0
    for picture, cut in with_cuts(pictures, cut_threshold):
        if cut:
            yield from _faces_of(shot, sightings)
            shot, sightings, next_look = shot + 1, [], picture.time
        if picture.time >= next_look:
            sightings.append((picture.time, faces_in(detector, picture_of(picture))))
            next_look = picture.time + _LOOK_EVERY_S
    yield from _faces_of(shot, sightings)


def _faces_of(shot: int, sightings: Sequence[tuple[float, Sequence[Detection]]]) -> list[ListedFace]:
    least = min(_SEEN_TWICE, len(sightings))
    tracks = [track for track in link(sightings) if len(track.boxes) >= least]
    return [_listed(shot, track) for track in sorted(tracks, key=lambda track: track.centre()[0])]


def _listed(shot: int, track: Track) -> ListedFace:
    best = int(np.argmax([np.prod(box[2:] - box[:2]) for box in track.boxes]))
    return ListedFace(shot, track.times[0], track.times[-1], track.times[best], track.boxes[best])


def contact_sheet(faces: Sequence[ListedFace], pictures: Sequence[np.ndarray]) -> np.ndarray:
    """One picture of all faces, numbered from 1 in their order.

    Args:
        faces: at least one.
        pictures: of each of them, see `cut_out`.

    Returns:
        uint8 RGB.
    """
    tiles = [_tile(number, *pair) for number, pair in enumerate(zip(faces, pictures, strict=True), start=1)]
    columns = min(_COLUMNS, len(tiles))
    width, height = _TILE + _GAP, _TILE + _CAPTION + _GAP
    sheet = np.full((-(-len(tiles) // columns) * height + _GAP, columns * width + _GAP, 3), _PAPER, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * height + _GAP, index % columns * width + _GAP
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet


def _tile(number: int, face: ListedFace, picture: np.ndarray) -> np.ndarray:
    tile = np.full((_TILE + _CAPTION, _TILE, 3), _PAPER, np.uint8)
    tile[:_TILE] = picture
    cv2.rectangle(tile, (0, 0), (20 + 16 * len(str(number)), 36), _PAPER, cv2.FILLED)
    _write(tile, str(number), (8, 29), 0.9, 2)
    _write(tile, f"shot {face.shot}, {face.size} px high", (2, _TILE + 16), 0.42, 1)
    _write(tile, f"{face.start:.1f} to {face.end:.1f} s", (2, _TILE + 34), 0.42, 1)
    return tile


def cut_out(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The face in a picture and what is around it, as a small square; grey where the picture ends."""
    centre, half = (box[:2] + box[2:]) / 2, float((box[2:] - box[:2]).max()) * (0.5 + _ROOM)
    scale = _TILE / (2 * half)
    matrix = np.array([[scale, 0, _TILE / 2 - scale * centre[0]], [0, scale, _TILE / 2 - scale * centre[1]]])
    flags = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    tile = cv2.warpAffine(picture, matrix, (_TILE, _TILE), flags=flags, borderValue=(190, 190, 190))
    corners = (box.reshape(2, 2) * scale + matrix[:, 2]).round().astype(int)
    return cv2.rectangle(tile, corners[0].tolist(), corners[1].tolist(), _MARK, 2)


def _write(tile: np.ndarray, text: str, at: tuple[int, int], size: float, weight: int) -> None:
    cv2.putText(tile, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, _INK, weight, cv2.LINE_AA)
