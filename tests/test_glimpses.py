"""A look at frames from all over a video before drawing: more of the same person, never another, at a bounded cost."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from evaluation.reading import look
from faces.choice import FaceChoice
from faces.detector import FaceDetector, FaceMesh
from faces.footage import frames_at_25
from faces.mouth_shape import SHAPE_POINTS, mouth_opening
from faces.window import MOUTH_WINDOW
from pipeline import LipSyncPipeline, Options
from pipeline.glimpses import look_elsewhere
from pipeline.seeing import Seeing
from tests import footage, threads
from tests.test_planning import write
from tests.tiny_weights import tiny_config
from utils.config import Config, load_config
from video_processor import MediaLimits, VideoReader, probe_video

REPO = Path(__file__).resolve().parent.parent
OPENS_AND_CLOSES = "test/videos/zejunyang_p077_0000.mp4"
PIECE = 12  # frames
MET = 75  # frames of the beginning that are met anyway
START = Options(steps=1, fit="cut", rest="cut", codec="ffv1")  # no more of the video than the sound is drawn


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    with threads.none_left():
        yield


@pytest.fixture(scope="module")
def config_file(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_config(tmp_path_factory.mktemp("config"), tiny_weights)


@pytest.fixture(scope="module")
def seeing() -> Seeing:
    config = load_config(REPO / "model_config.yaml")
    models = REPO / config.faces.models_dir
    detector = FaceDetector(models, config.faces.min_detection_score)
    return Seeing(detector, FaceMesh(models), None, config, MOUTH_WINDOW, FaceChoice(), min_confidence=0.5)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each frame that any reader has decoded so far."""
    seen: list[None] = []
    original = VideoReader.raw_frames

    def counted(self: VideoReader, *args: int) -> Iterator:
        for frame in original(self, *args):
            seen.append(None)
            yield frame

    monkeypatch.setattr(VideoReader, "raw_frames", counted)
    return seen


def silence(path: Path, seconds: float) -> Path:
    soundfile.write(path, np.zeros(round(16000 * seconds)), 16000)
    return path


def there_and_back(images: list[np.ndarray], count: int) -> list[np.ndarray]:
    """So many pictures: all of them forwards and backwards, again and again."""
    turn = len(images) - 1
    return [images[turn - abs(number % (2 * turn) - turn)] for number in range(count)]


def test_lips_close_from_the_start_where_the_video_shows_closed_lips_only_later(
    talking_faces: Path, lite_weights: Path, tmp_path: Path
) -> None:
    config = load_config(REPO / "model_config.yaml")
    clip = talking_faces / OPENS_AND_CLOSES
    seen = look(clip, config)
    opening = mouth_opening(seen.points[:, SHAPE_POINTS])
    pieces = np.lib.stride_tricks.sliding_window_view(opening, PIECE)
    open_at, closed_at = int(pieces.min(axis=1).argmax()), int(pieces.max(axis=1).argmin())
    opened, closed = np.median(pieces[open_at]), np.median(pieces[closed_at])
    assert opened > 1.5 * closed, "the clip shows both"
    with VideoReader(clip) as reader:
        images = [frame.image for frame in frames_at_25(reader)][seen.first :]
    video = write(
        tmp_path / "video.mp4",
        there_and_back(images[open_at : open_at + PIECE], 50)
        + there_and_back(images[closed_at : closed_at + PIECE], 75),
    )
    pipeline = LipSyncPipeline.load(config, torch.device("cpu"))
    result = pipeline.run(video, silence(tmp_path / "silence.wav", 1.2), tmp_path / "out.mkv", START).output
    drawn = mouth_opening(look(result, config).points[:, SHAPE_POINTS])
    assert len(drawn) >= 25
    assert np.median(drawn[:25]) < closed + 0.3 * (opened - closed)


def on_a_wall(face: Callable[[float], np.ndarray], seconds: float) -> list[np.ndarray]:
    """A small face that moves a little before a wide grey wall, 25 frames a second."""
    images = []
    for number in range(round(25 * seconds)):
        image = np.full((360, 640, 3), 120, np.uint8)
        image[80:320, 200:440] = face(number / 25)
        images.append(image)
    return images


def first_person(time: float) -> np.ndarray:
    return footage.face_frame(time, (240, 240))


def second_person(time: float) -> np.ndarray:
    """Somebody in the same place: the first one's mirror image with darker skin."""
    return (first_person(time)[:, ::-1] * 0.6).astype(np.uint8)


def drawn_frames(config: Config, video: Path, name: str) -> list[np.ndarray]:
    """What becomes of the first second."""
    pipeline = LipSyncPipeline.load(config, torch.device("cpu"))
    sound = footage.make_sound(video.parent / "speech.wav", 1.0)
    result = pipeline.run(video, sound, video.parent / name, START).output
    with VideoReader(result) as reader:
        return [frame.image for frame in reader]


def same(some: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize(("later", "matters"), [(first_person, True), (second_person, False)])
def test_only_the_same_person_is_taken_into_account_even_before_the_same_wall(
    config_file: Path, tmp_path: Path, later: Callable[[float], np.ndarray], matters: bool
) -> None:
    moved = [later(number / 25 + 0.5) for number in range(100)]
    video = write(tmp_path / "video.mp4", on_a_wall(first_person, 2.0) + on_a_wall(lambda t: moved[round(25 * t)], 4.0))
    lively = ["inference.mouth_gain=3"]  # mouths that the first seconds do not show
    config = load_config(config_file, lively)
    with_them = drawn_frames(config, video, "with.mkv")
    assert same(with_them, drawn_frames(config, video, "again.mkv")), "the same input gives the same output"
    without = drawn_frames(load_config(config_file, [*lively, "inference.glimpses=0"]), video, "without.mkv")
    assert same(with_them, without) != matters


def test_frames_come_from_the_shots_of_the_person_only(seeing: Seeing, tmp_path: Path) -> None:
    between = on_a_wall(second_person, 4.0)
    video = write(tmp_path / "video.mp4", on_a_wall(first_person, 4.0) + between + on_a_wall(first_person, 4.0))
    found = look_elsewhere(probe_video(video), seeing, seeing.config, MediaLimits(), MET)
    with VideoReader(video) as reader:
        mouths = [replace(mouth, frame=None) for mouth in seeing.mouths(reader.between(0, 12)) if mouth.reason is None]
    for start, stop in ((0, 4), (4, 8)):
        times = [mouth.time for mouth in found.like([mouth for mouth in mouths if start <= mouth.time < stop])]
        assert len(times) >= 10
        assert all((4 <= time < 8) == (start == 4) for time in times)


@pytest.mark.parametrize("other", ["vasa_0_0000", "lrcar_p021_0000"])
def test_real_people_who_take_turns_before_one_wall_are_not_mixed_up(
    seeing: Seeing, talking_faces: Path, tmp_path: Path, other: str
) -> None:
    first, second = (
        heads(seeing, talking_faces / "test" / "videos" / f"{name}.mp4") for name in ("astorfi_p090_0000", other)
    )
    images = [*there_and_back(first, 100), *there_and_back(second, 100), *there_and_back(first, 50)]
    video = write(tmp_path / "video.mp4", on_a_wall(lambda time: images[round(25 * time)], len(images) / 25))
    found = look_elsewhere(probe_video(video), seeing, seeing.config, MediaLimits(), MET)
    with VideoReader(video) as reader:
        met = [mouth for mouth in seeing.mouths(reader.between(0, 3)) if mouth.reason is None]
    times = [mouth.time for mouth in found.like(met)]
    assert any(4 <= frame.time < 8 for frame in found.frames), "the other one is seen"
    assert len(times) >= 10
    assert not any(4 <= time < 8 for time in times)


def heads(seeing: Seeing, clip: Path) -> list[np.ndarray]:
    """The first second of a clip, cut out around the face, 240x240 px."""
    with VideoReader(clip) as reader:
        images = [frame.image for frame in itertools.islice(reader, 25)]
    box = max(seeing.detector.detect(images[0]), key=lambda face: face.score).box
    side, (x, y) = int(1.8 * (box[3] - box[1])), ((box[:2] + box[2:]) / 2).astype(int).tolist()
    wide = [cv2.copyMakeBorder(image, side, side, side, side, cv2.BORDER_REPLICATE) for image in images]
    top, left = y + side - side // 2, x + side - side // 2
    return [cv2.resize(image[top : top + side, left : left + side], (240, 240), cv2.INTER_AREA) for image in wide]


@pytest.mark.parametrize("keyframe_interval", [25, 9999])
def test_the_work_does_not_grow_with_the_length(
    seeing: Seeing, tmp_path: Path, decoded: list[None], keyframe_interval: int
) -> None:
    counts = []
    for seconds in (30, 60):
        video = footage.make_video(
            tmp_path / f"{seconds}.mp4", seconds, size=(160, 160), sound=False, keyframe_interval=keyframe_interval
        )
        info = probe_video(video)
        decoded.clear()
        found = look_elsewhere(info, seeing, seeing.config, MediaLimits(), MET)
        counts.append(len(decoded))
        assert len(found.frames) <= seeing.config.inference.glimpses
        assert max(frame.time for frame in found.frames) > (0.9 * seconds if keyframe_interval == 25 else 10)
    assert max(counts) <= MET + seeing.config.inference.glimpses + 400


def test_a_still_picture_and_a_short_video_are_not_looked_through(
    seeing: Seeing, tmp_path: Path, decoded: list[None]
) -> None:
    for path in (footage.make_portrait(tmp_path / "portrait.png"), footage.make_video(tmp_path / "short.mp4", 3.0)):
        info = probe_video(path)
        decoded.clear()
        assert not look_elsewhere(info, seeing, seeing.config, MediaLimits(), MET).frames
        assert not decoded


def test_a_file_that_breaks_off_after_what_is_drawn_is_no_fault(config_file: Path, tmp_path: Path) -> None:
    whole = footage.make_video(tmp_path / "whole.mkv", 8.0)
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    assert len(drawn_frames(load_config(config_file), broken, "out.mkv")) == 25


def test_it_can_be_stopped_and_tells_that_it_lives(config_file: Path, tmp_path: Path, decoded: list[None]) -> None:
    class Stop(Exception):
        pass

    video = footage.make_video(tmp_path / "video.mp4", 40, size=(160, 160), sound=False)
    pipeline = LipSyncPipeline.load(load_config(config_file, ["inference.glimpses=900"]), torch.device("cpu"))
    told: list[float] = []

    def progress(done: int, total: int | None) -> None:
        if done == 0 and len(decoded) > 150:  # of so many frames in all only the look reads any before the first result
            told.append(time.monotonic())
            if len(told) == 5:
                raise Stop

    with pytest.raises(Stop):
        pipeline.run(video, silence(tmp_path / "silence.wav", 0.2), tmp_path / "out.mkv", START, progress)
    assert time.monotonic() - told[-1] < 1.0
    assert told[-1] - told[0] < 3.0
    assert not (tmp_path / "out.mkv").exists()
