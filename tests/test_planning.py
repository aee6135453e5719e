"""Whom to follow where all of a video is looked at first: the speaker of each scene, a face at a later point."""

from __future__ import annotations

import csv
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from faces.choice import FaceChoice
from pipeline import LipSyncPipeline, Options
from pipeline.planning import Planner, _source_time
from tests import footage
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import MediaLimits, VideoReader, fitted_frames, probe_video

REPO = Path(__file__).resolve().parent.parent
PAIRS = (  # two people of the test split, and which of them is heard
    ("opentalker_p071_0000.mp4", "kleinlee_p118_0000.mp4", 0),
    ("zejunyang_p077_0000.mp4", "anshsareen_p073_0000.mp4", 0),
    ("zejunyang_p077_0000.mp4", "anshsareen_p073_0000.mp4", 1),
)


@pytest.fixture(scope="module")
def tiny(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    config = load_config(tiny_config(tmp_path_factory.mktemp("config"), tiny_weights))
    return LipSyncPipeline.load(config, torch.device("cpu"))


def write(path: Path, images: list[np.ndarray], sound_of: Path | None = None) -> Path:
    """A video at 25 fps, with the sound of another one."""
    height, width = images[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25), options={"crf": "16", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        source = av.open(str(sound_of)) if sound_of else None
        track = container.add_stream_from_template(source.streams.audio[0]) if source else None
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        if source is not None:
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None and packet.pts * packet.time_base < len(images) / 25:
                    packet.stream = track
                    container.mux(packet)
            source.close()
    return path


def two_faces(right_from: int, count: int) -> list[np.ndarray]:
    """A face on the left, and from a frame on a smaller one on the right."""
    left = footage.face_frame(0.0, (320, 320))
    small = footage.face_frame(0.0, (240, 240))
    images = []
    for number in range(count):
        image = np.full((320, 640, 3), 90, np.uint8)
        image[:, :320] = left
        if number >= right_from:
            image[40:280, 360:600] = small
        images.append(image)
    return images


def places(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Where the patches of a run are (left edge, px; None: no patch), filled as it runs."""
    from pipeline import job

    given: list[float | None] = []

    class Recorder(job.VideoWriter):
        def write(self, frame, patch=None):  # noqa: ANN001, ANN202 - as in the base
            given.append(None if patch is None else patch.x)
            return super().write(frame, patch)

    monkeypatch.setattr(job, "VideoWriter", Recorder)
    return given


def test_a_face_that_appears_later_is_followed_from_where_it_is_first_seen(
    tiny: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write(tmp_path / "video.mp4", two_faces(right_from=10, count=30))
    given = places(monkeypatch)
    sound = footage.make_sound(tmp_path / "speech.wav", 1.2)
    tiny.run(video, sound, tmp_path / "out.mp4", Options(face="point:480,160@1.0"))
    assert given[:10] == [None] * 10
    assert all(x is not None and x > 360 for x in given[16:30])


def test_a_point_without_a_face_is_refused_and_leaves_nothing(tiny: LipSyncPipeline, tmp_path: Path) -> None:
    video = write(tmp_path / "video.mp4", two_faces(right_from=0, count=12))
    sound = footage.make_sound(tmp_path / "speech.wav", 0.4)
    with pytest.raises(InputError, match=r"no face at the point 330,10 at 0\.2 s"):
        tiny.run(video, sound, tmp_path / "out.mp4", Options(face="point:330,10@0.2"))
    assert not (tmp_path / "out.mp4").exists()


def test_a_speaker_without_sound_or_network_is_the_largest_face_and_the_summary_says_so(
    tiny: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = write(tmp_path / "video.mp4", two_faces(right_from=0, count=12))
    sound = footage.make_sound(tmp_path / "speech.wav", 0.4)
    given = places(monkeypatch)
    summary = tiny.run(video, sound, tmp_path / "out.mp4", Options(face="speaker"))
    assert any("speaker cannot be told" in note and "largest" in note for note in summary.notes)
    assert {x is not None and x < 320 for x in given if x is not None} == {True}


def test_a_video_without_any_face_is_refused_before_the_work(tiny: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.6, faceless=(0, 9))
    sound = footage.make_sound(tmp_path / "speech.wav", 0.4)
    with pytest.raises(InputError, match="No face can be used anywhere"):
        tiny.run(video, sound, tmp_path / "out.mp4", Options(face="speaker"))
    assert not (tmp_path / "out.mp4").exists()


def test_a_picture_without_a_face_is_refused_at_once(tiny: LipSyncPipeline, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    footage.Image.fromarray(footage.faceless_frame(0.0)).save(picture)
    sound = footage.make_sound(tmp_path / "speech.wav", 60.0)
    with pytest.raises(InputError, match="No face can be used in the picture"):
        tiny.run(picture, sound, tmp_path / "out.mp4", Options())
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("fit", ["bounce", "loop"])
def test_time_in_a_video_that_is_played_again(tmp_path: Path, fit: str) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.4, numbered=True, sound=False)
    source = _source_time(probe_video(video), fit)
    for frame in fitted_frames(video, 1.6, fit):
        assert source(frame.time) == pytest.approx(footage.read_number(frame.image) / 25, abs=0.011)


def fitted(path: Path, count: int) -> list[np.ndarray]:
    with VideoReader(path) as reader:
        images = [frame.image for frame in reader][:count]
    square = []
    for image in images:
        scale = 320 / max(image.shape[:2])
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        square.append(np.zeros((320, 320, 3), np.uint8))
        square[-1][: small.shape[0], : small.shape[1]] = small[:320, :320]
    return square


def test_the_speaker_is_the_one_whose_sound_is_heard(
    talking_faces: Path, lite_weights: Path, tmp_path: Path
) -> None:
    names = {Path(row["file"]).name for row in csv.DictReader((talking_faces / "manifest.tsv").open(), delimiter="\t")}
    if not {name for pair in PAIRS for name in pair[:2]} <= names:
        pytest.skip("these clips are not among the real ones")
    config = load_config(REPO / "model_config.yaml")
    lip_sync = LipSyncPipeline.load(config, torch.device("cpu"))
    right = 0
    for number, (left, other, heard) in enumerate(PAIRS):
        clips = [talking_faces / "test" / "videos" / name for name in (left, other)]
        sides = [fitted(clip, 60) for clip in clips]
        images = [np.hstack(pair) for pair in zip(*sides, strict=False)]
        video = write(tmp_path / f"{number}.mp4", images, clips[heard])
        limits = MediaLimits()
        planner = Planner(probe_video(video), lip_sync._detector, lip_sync._mesh, config, limits)
        planned = planner.plan(FaceChoice("speaker"), "bounce", 10.0, lip_sync._judge)
        ((_, track),) = planned.plan.chosen
        right += not planned.notes and (track.centre()[0] > 320) == bool(heard)
    assert right >= 2


def test_the_faces_of_a_video_are_surveyed_up_to_a_time(tiny: LipSyncPipeline, tmp_path: Path) -> None:
    images = two_faces(0, 10) + [np.ascontiguousarray(footage.faceless_frame(0.0, (640, 320)))] * 10
    video = write(tmp_path / "video.mp4", images)
    planner = Planner(probe_video(video), tiny._detector, tiny._mesh, tiny._config, MediaLimits())
    shots = planner.shots()
    assert [len(shot.faces()) for shot in shots] == [2, 0]
    assert len(replace(planner).shots(until=0.1)) == 1


@pytest.mark.parametrize("name", ["in.mp4", "in.png"])
def test_an_index_beyond_the_faces_is_refused_with_their_number(
    tiny: LipSyncPipeline, tmp_path: Path, name: str
) -> None:
    pair = np.concatenate([footage.face_frame(0.0, (240, 240))] * 2, axis=1)
    if name == "in.png":
        cv2.imwrite(str(tmp_path / name), cv2.cvtColor(pair, cv2.COLOR_RGB2BGR))
    else:
        write(tmp_path / name, [pair] * 12)
    speech = footage.make_sound(tmp_path / "speech.wav", 0.3)

    with pytest.raises(InputError, match="at most 2 faces"):
        tiny.run(tmp_path / name, speech, tmp_path / "out.mp4", Options(steps=1, face="index:9"))

    assert tiny.run(tmp_path / name, speech, tmp_path / "out.mp4", Options(steps=1, face="index:1")).generated
