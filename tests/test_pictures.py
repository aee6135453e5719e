"""Pictures that are converted where somebody looks at them show what the whole picture shows."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from tests import footage
from utils.pictures import ArrayPicture, picture_of
from video_processor import Frame, VideoReader

KINDS = {
    "usual": {},
    "ten bits": {"pix_fmt": "yuv422p10le"},
    "full range": {"full_range": True},
    "odd size": {"size": (333, 271), "pix_fmt": "yuv444p"},
    "turned": {"rotation": 90},
    "mirrored": {"mirrored": True},
    "old matrix": {"matrix": 6},
}


@pytest.fixture(params=KINDS, scope="module")
def frames(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Frame]:
    """The first frames of a video, and again, so that one of each pair can be looked at as a whole."""
    path = footage.make_video(tmp_path_factory.mktemp("v") / "video.mp4", 0.2, sound=False, **KINDS[request.param])
    frames = []
    for _ in range(2):
        with VideoReader(path) as reader:
            frames.append(next(iter(reader)))
    return frames


@pytest.mark.parametrize("box", [(0, 0, 60, 50), (101, 83, 222, 190), (130, 97, 131, 98), (200, 201, 271, 271)])
def test_a_part_is_that_of_the_whole(frames: list[Frame], box: tuple[int, int, int, int]) -> None:
    x0, y0, x1, y1 = box
    whole = frames[0].image
    assert frames[1].picture.shape == whole.shape[:2]
    part = frames[1].picture.part(*box)
    assert part.shape == (y1 - y0, x1 - x0, 3) and part.dtype == np.uint8
    difference = np.abs(part.astype(int) - whole[y0:y1, x0:x1])
    # Colours are stored at half the size; where exactly between the pixels is not known of a part.
    assert difference.mean() < 1.5 and difference.max() < 25


def test_a_small_picture_is_the_whole_one_reduced(frames: list[Frame]) -> None:
    small = frames[1].picture.small(64)
    assert max(small.shape[:2]) == 64
    expected = cv2.resize(frames[0].image, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 3
    assert frames[1].picture.small(1000).shape == frames[0].image.shape


def test_parts_near_each_other_are_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = footage.make_video(tmp_path / "video.mp4", 0.2, sound=False)
    with VideoReader(path) as reader:
        frame = next(iter(reader))
    converted = []
    picture = frame.picture

    def counted(raw: av.VideoFrame, converter: VideoReformatter) -> np.ndarray:
        converted.append(raw.width)
        return converter.reformat(raw, format="rgb24").to_ndarray()

    monkeypatch.setattr(picture, "_convert", counted)
    picture.part(100, 100, 200, 200)
    picture.part(104, 98, 196, 203)
    assert len(converted) == 1 and converted[0] < 200
    picture.part(10, 10, 20, 20)
    assert len(converted) == 2


def test_arrays_are_pictures_too() -> None:
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)

    class Bare:
        def __init__(self) -> None:
            self.image = image

    picture = picture_of(Bare())
    assert isinstance(picture, ArrayPicture) and picture.shape == (40, 60)
    assert picture.part(3, 5, 20, 9).shape == (4, 17, 3) and picture.small(30).shape == (20, 30, 3)
