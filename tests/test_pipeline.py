"""The whole way with small networks of random weights: what comes in and out, what stays untouched, how it fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from engines.lite.engine import Lite
from engines.lite.model import LipSyncModel
from faces.usable import AFTER_SPEECH, NO_FACE
from language_processor import SpokenText
from models.phonemes import SYMBOLS, Phoneme
from pipeline import LipSyncPipeline, Summary, job
from pipeline.options import Options
from tests import footage, threads
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import Frame, Patch, VideoReader, VideoWriter, probe_video

REPO = Path(__file__).resolve().parent.parent
FAST = Options(steps=1)
LOSSLESS = replace(FAST, codec="ffv1")


@pytest.fixture(scope="module")
def lip_sync(tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> LipSyncPipeline:
    config = load_config(tiny_config(tmp_path_factory.mktemp("config"), tiny_weights))
    return LipSyncPipeline.load(config, torch.device("cpu"))


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    with threads.none_left():
        yield


@pytest.fixture
def patches(monkeypatch: pytest.MonkeyPatch) -> list[Patch | None]:
    """What the pipeline gives to the writer for each frame, in order."""
    given: list[Patch | None] = []

    class Recorder(VideoWriter):
        def write(self, frame: Frame, patch: Patch | None = None) -> av.VideoFrame:
            given.append(patch)
            return super().write(frame, patch)

    monkeypatch.setattr(job, "VideoWriter", Recorder)
    return given


def planes(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Luma (H, W) and chroma (2, H/2, W/2) of each frame as stored in a yuv420p file."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(video=0)]
    height = frames[0].shape[0] * 2 // 3
    return [(f[:height], f[height:].reshape(2, height // 2, -1)) for f in frames]


def equal(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def times(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.array([frame.time for frame in reader])


def sound_seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


def run(lip_sync: LipSyncPipeline, video: Path, seconds: float, name: str, options: Options = FAST) -> Summary:
    """Let `video` speak `seconds` of sound; the result lies beside it."""
    audio = footage.make_sound(video.parent / "speech.wav", seconds)
    return lip_sync.run(video, audio, video.parent / name, options)


def test_a_text_brings_its_own_sound_and_subtitles(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    portrait = footage.make_portrait(tmp_path / "portrait.png")
    subtitles, text = tmp_path / "said.srt", SpokenText("Pam, my mummy.", "en", "espeak-male")
    summary = lip_sync.run(portrait, None, tmp_path / "said.mp4", FAST, text=text, subtitles=subtitles)
    assert summary.frames == pytest.approx(25 * sound_seconds(summary.output), abs=2)
    assert "Pam, my mummy." in subtitles.read_text(encoding="utf-8")


def test_phonemes_change_the_mouth_only_where_the_weights_know_them(
    lip_sync: LipSyncPipeline, tiny_weights: Path, tmp_path: Path
) -> None:
    portrait = footage.make_portrait(tmp_path / "portrait.png")
    audio = footage.make_sound(tmp_path / "speech.wav", 0.6)
    said = [Phoneme("s", SYMBOLS.index("s"), 0.1, 0.3), Phoneme("a", SYMBOLS.index("a"), 0.3, 0.6)]

    def mouths(by: LipSyncPipeline, **more: object) -> list[tuple[np.ndarray, np.ndarray]]:
        return planes(by.run(portrait, audio, tmp_path / "out.mkv", LOSSLESS, **more).output)

    silent = mouths(lip_sync)
    assert all(map(equal, silent, mouths(lip_sync, phonemes=said)))
    model = LipSyncModel.load(tiny_weights, size="debug")
    model.speech_model.register_to_config(knows_phonemes=True)
    taught = LipSyncPipeline(Lite.of(model, lip_sync._config), lip_sync._config)
    assert all(map(equal, silent, mouths(taught)))
    assert not all(map(equal, silent, mouths(taught, phonemes=said)))


def test_silence_throughout_is_said_in_the_summary(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "in.mp4", 0.4, sound=False)
    soundfile.write(tmp_path / "silence.wav", np.zeros(6400), 16000)

    summary = lip_sync.run(video, tmp_path / "silence.wav", tmp_path / "out.mp4", FAST)

    assert any("silent throughout" in note for note in summary.notes)


def test_a_portrait_speaks_for_as_long_as_the_sound(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    portrait = footage.make_portrait(tmp_path / "portrait.jpg", size=(320, 360), orientation=6)
    summary = run(lip_sync, portrait, 1.2, "out.mp4")

    info = probe_video(summary.output)
    assert (info.width, info.height, info.fps) == (320, 360, 25)
    assert summary.frames == summary.generated == 30 and summary.passed_through == {}
    assert np.allclose(times(summary.output), np.arange(30) / 25, atol=1e-3)
    assert sound_seconds(summary.output) == pytest.approx(1.2, abs=0.05)
    assert set(summary.stages) == {"decode", "faces", "generate", "render", "paste", "encode"}
    assert summary.fps == pytest.approx(30 / summary.seconds)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
def test_every_result_says_that_it_is_synthetic(lip_sync: LipSyncPipeline, tmp_path: Path, name: str) -> None:
    portrait = footage.make_portrait(tmp_path / "portrait.png")
    summary = run(lip_sync, portrait, 0.2, name)
    with av.open(str(summary.output)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
    assert "digitalsourcetype/compositeWithTrainedAlgorithmicMedia" in tags["comment"]


@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30000, 1001), Fraction(15)])
def test_any_frame_rate_is_kept(lip_sync: LipSyncPipeline, tmp_path: Path, fps: Fraction) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.0, fps=fps)
    summary = run(lip_sync, video, 1.0, "out.mp4")

    assert probe_video(summary.output).fps == probe_video(video).fps
    assert np.allclose(times(summary.output), times(video), atol=2e-4)
    assert summary.generated == summary.frames == round(fps)


def test_hdr_stays_hdr_and_the_summary_says_so(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_deep(tmp_path / "in.mp4", size=(320, 320), count=10, options={"x265-params": "log-level=none"})
    audio = footage.make_sound(tmp_path / "speech.wav", 0.4)

    # The curve is only a tag here, so the picture looks odd; whether a mouth is covered cannot be told from it.
    summary = lip_sync.run(video, audio, tmp_path / "out.mp4", replace(FAST, min_confidence=0.0))

    before, after = probe_video(video), probe_video(summary.output)
    assert (after.pix_fmt, after.colour) == (before.pix_fmt, before.colour) and after.is_hdr
    assert summary.generated == 10 and any("HDR" in note for note in summary.notes)


def test_a_video_that_seems_covered_throughout_is_drawn_and_the_doubt_is_said(
    lip_sync: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.8)
    audio, out = footage.make_sound(tmp_path / "speech.wav", 0.8), tmp_path / "out.mp4"
    monkeypatch.setattr(lip_sync, "_cover", lambda window: 1.0)

    summary = lip_sync.run(video, audio, out, FAST)
    assert summary.generated == summary.frames == 20 and not summary.passed_through
    assert any("20 of 20 frames" in note and "--min-confidence" in note for note in summary.notes)
    with pytest.raises(InputError, match="20 covered.*--min-confidence"):
        lip_sync.run(video, audio, tmp_path / "trusted.mp4", replace(FAST, min_confidence=0.6))
    assert not (tmp_path / "trusted.mp4").exists()

    looks = itertools.count()
    monkeypatch.setattr(lip_sync, "_cover", lambda window: float(next(looks) >= 10))
    summary = lip_sync.run(video, audio, out, FAST)
    assert summary.passed_through == {"covered": 10} and not any("covered" in note for note in summary.notes)


def test_a_scene_that_seems_covered_throughout_is_drawn_and_another_covered_for_a_while_is_not(
    lip_sync: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two scenes of 30 frames, the second mirrored and dark: all of it seems covered, and 10 frames of the first."""
    images = [footage.face_frame(index / 25) for index in range(30)]
    video = tmp_path / "video.mkv"
    with av.open(str(video), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for image in [*images, *((image[:, ::-1] * 0.4).astype(np.uint8) for image in images)]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image))))
        container.mux(stream.encode(None))
    looks = itertools.count()

    def cover(window: np.ndarray) -> float:
        bright = float(window.mean()) > 70
        return float(not bright or next(looks) % 30 >= 20)

    monkeypatch.setattr(lip_sync, "_cover", cover)
    audio = footage.make_sound(tmp_path / "speech.wav", 2.4)
    summary = lip_sync.run(video, audio, tmp_path / "out.mp4", FAST)

    assert summary.passed_through == {"covered": 10} and summary.generated == 50
    assert any("throughout one scene (30 frames)" in note for note in summary.notes)
    summary = lip_sync.run(video, audio, tmp_path / "out.mp4", replace(FAST, min_confidence=0.6))
    assert summary.passed_through == {"covered": 40}


def test_a_portrait_that_seems_covered_is_drawn_and_the_doubt_is_said(
    lip_sync: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, example_portrait: Path
) -> None:
    audio = footage.make_sound(tmp_path / "speech.wav", 0.4)
    monkeypatch.setattr(lip_sync, "_cover", lambda window: 1.0)
    summary = lip_sync.run(example_portrait, audio, tmp_path / "out.mp4", FAST)
    assert summary.generated == summary.frames and any("seems covered" in note for note in summary.notes)
    with pytest.raises(InputError, match="covered.*--min-confidence"):
        lip_sync.run(example_portrait, audio, tmp_path / "out.mp4", replace(FAST, min_confidence=0.6))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_phone_video_gets_its_mouth_where_the_viewer_sees_it(
    lip_sync: LipSyncPipeline, tmp_path: Path, patches: list[Patch | None], rotation: int
) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.6, size=(240, 320), rotation=rotation)
    summary = run(lip_sync, video, 0.6, "out.mp4")

    info = probe_video(summary.output)
    assert (info.width, info.height, info.rotation) == (240, 320, rotation)
    with VideoReader(video) as before, VideoReader(summary.output) as after:
        for old, new, patch in zip(before, after, patches, strict=True):
            change = np.abs(old.image.astype(int) - new.image).mean(-1)
            inside = np.zeros(change.shape, bool)
            height, width = patch.alpha.shape
            inside[patch.y : patch.y + height, patch.x : patch.x + width] = patch.alpha > 0.5
            assert change[inside].mean() > 3 * change[~inside].mean()
            assert 0.4 * 320 < patch.y + height / 2 < 0.8 * 320  # the mouth is below the middle of the head


def test_outside_of_the_mask_every_pixel_is_the_input(
    lip_sync: LipSyncPipeline, tmp_path: Path, patches: list[Patch | None]
) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.0)
    summary = run(lip_sync, video, 1.0, "out.mkv", LOSSLESS)

    assert len(patches) == summary.generated == 25
    for before, after, patch in zip(planes(video), planes(summary.output), patches, strict=True):
        height, width = patch.alpha.shape
        alpha = np.zeros(before[0].shape, np.float32)
        alpha[patch.y : patch.y + height, patch.x : patch.x + width] = patch.alpha
        small = alpha.reshape(alpha.shape[0] // 2, 2, alpha.shape[1] // 2, 2).max((1, 3))
        assert 0.01 < (alpha > 0).mean() < 0.3
        assert np.array_equal(before[0][alpha == 0], after[0][alpha == 0])
        assert np.array_equal(before[1][:, small == 0], after[1][:, small == 0])
        assert not np.array_equal(before[0][alpha > 0.9], after[0][alpha > 0.9])


def test_frames_without_a_face_are_bit_exact(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.4, faceless=(0.48, 0.88))
    summary = run(lip_sync, video, 1.4, "out.mkv", LOSSLESS)

    assert summary.passed_through == {NO_FACE: 10}
    assert summary.generated == 25
    same = [equal(a, b) for a, b in zip(planes(video), planes(summary.output), strict=True)]
    assert same == [False] * 12 + [True] * 10 + [False] * 13


def test_after_a_shorter_sound_the_video_goes_on_unchanged(
    lip_sync: LipSyncPipeline, tmp_path: Path, patches: list[Patch | None]
) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.6)
    summary = run(lip_sync, video, 0.8, "out.mkv", replace(LOSSLESS, rest="keep"))

    fade = 4
    assert summary.frames == 40 and summary.generated == 20 + fade
    assert summary.passed_through == {AFTER_SPEECH: 16}
    same = [equal(a, b) for a, b in zip(planes(video), planes(summary.output), strict=True)]
    assert same == [False] * 24 + [True] * 16
    opacity = [round(float(patch.alpha.max()), 1) for patch in patches[17:24]]
    assert opacity == [1, 1, 1, 0.8, 0.6, 0.4, 0.2]


def test_after_a_shorter_sound_the_mouth_is_drawn_at_rest_to_the_end(
    lip_sync: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments: list[float] = []
    drawn = job.draw_mouths

    def watched(frames: Iterator, *rest: object) -> Iterator:
        def seen() -> Iterator:
            for mouth, person in frames:
                moments.append(mouth.time)
                yield mouth, person

        return drawn(seen(), *rest)

    monkeypatch.setattr(job, "draw_mouths", watched)
    video = footage.make_video(tmp_path / "video.mp4", 2.4)
    summary = run(lip_sync, video, 0.8, "out.mkv", LOSSLESS)

    assert summary.frames == summary.generated == 60
    assert not any(equal(a, b) for a, b in zip(planes(video), planes(summary.output), strict=True))
    # Each frame up to the rest hears its own moment; then all hear the same one, which lies in silence.
    assert moments[:35] == pytest.approx(times(video)[:35]) and moments[35:] == pytest.approx([1.4] * 25)


def test_the_rest_after_a_shorter_sound_can_be_cut(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.2)
    assert run(lip_sync, video, 0.6, "out.mp4", replace(FAST, rest="cut")).frames == 15


@pytest.mark.parametrize(("fit", "frames"), [("bounce", 38), ("loop", 38), ("freeze", 38), ("cut", 15)])
def test_a_longer_sound_is_fitted(lip_sync: LipSyncPipeline, tmp_path: Path, fit: str, frames: int) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.6)
    summary = run(lip_sync, video, 1.5, "out.mp4", replace(FAST, fit=fit))
    assert summary.frames == summary.generated == frames
    assert np.all(np.diff(times(summary.output)) > 0.03)
    assert sound_seconds(summary.output) == pytest.approx(min(1.5, frames / 25), abs=0.06)


@pytest.mark.parametrize(("face", "left"), [("left", True), ("right", False), ("largest", False)])
def test_the_chosen_face_speaks(
    lip_sync: LipSyncPipeline, tmp_path: Path, patches: list[Patch | None], face: str, left: bool
) -> None:
    two = np.hstack([footage.face_frame(0.0, (240, 320))[:, 20:220], footage.face_frame(0.0, (320, 320))])
    path = tmp_path / "two.png"
    footage.Image.fromarray(two).save(path)
    run(lip_sync, path, 0.2, "out.mp4", replace(FAST, face=face))
    assert {patch.x < 200 for patch in patches} == {left}


def test_the_same_command_gives_the_same_pixels(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    portrait = footage.make_portrait(tmp_path / "portrait.png")
    first, again = (planes(run(lip_sync, portrait, 0.8, f"{i}.mkv", LOSSLESS).output) for i in range(2))
    assert len(first) == 20
    assert all(equal(a, b) for a, b in zip(first, again, strict=True))


def test_progress_counts_up_to_the_expected_number(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.8)
    audio = footage.make_sound(tmp_path / "speech.wav", 1.2)
    seen: list[tuple[int, int | None]] = []
    lip_sync.run(video, audio, tmp_path / "out.mp4", FAST, lambda done, total: seen.append((done, total)))
    counts = [done for done, _ in seen]
    assert counts == sorted(counts) and set(counts) - {0} == set(range(1, 31))
    assert {total for done, total in seen if done} == {30}


@pytest.mark.parametrize(
    "stage",
    [
        "pipeline.job.fitted_frames",
        "pipeline.seeing.mouth_windows",
        "pipeline.job.draw_mouths",
        "pipeline.job.render_mouths",
        "engines.base.composite",
    ],
)
def test_an_error_in_any_stage_ends_the_run_and_leaves_nothing(
    lip_sync: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError("the disk is on fire")

    video = footage.make_video(tmp_path / "video.mp4", 1.0)
    monkeypatch.setattr(stage, broken)
    before = set(tmp_path.iterdir())
    with pytest.raises(OSError, match="on fire"):
        run(lip_sync, video, 1.0, "out.mp4")
    assert set(tmp_path.iterdir()) - before == {tmp_path / "speech.wav"}


def test_an_interrupt_leaves_the_old_file_as_it_was(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.0)
    audio = footage.make_sound(tmp_path / "speech.wav", 1.0)
    target = tmp_path / "out.mp4"
    target.write_text("an earlier result")

    def stop(done: int, total: int | None) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lip_sync.run(video, audio, target, FAST, stop)
    assert target.read_text() == "an earlier result"
    assert set(tmp_path.iterdir()) == {video, audio, target}


def test_a_video_without_any_face_is_refused(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 0.6, faceless=(0, 9))
    with pytest.raises(InputError, match=r"No face can be used.*15 without a face"):
        run(lip_sync, video, 0.6, "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_the_trained_weights_move_the_mouth_and_keep_the_skin(lite_weights: Path, tmp_path: Path) -> None:
    config = load_config(REPO / "model_config.yaml")
    trained = LipSyncPipeline.load(config, torch.device("cpu"))
    portrait, speech = REPO / "examples" / "smile.png", tmp_path / "speech.wav"
    samples, rate = footage.soundfile.read(REPO / "examples" / "speech.wav")
    footage.soundfile.write(speech, samples[: round(2.0 * rate)], rate)
    summary = trained.run(portrait, speech, tmp_path / "out.mkv", Options(codec="ffv1", steps=config.inference.steps))

    assert summary.generated == summary.frames == 50
    luma = np.stack([frame[0] for frame in planes(summary.output)]).astype(np.float32)
    moving = luma.std(0)
    assert np.count_nonzero(moving > 8) > 100  # lips and teeth
    assert moving.max() < 80
    assert np.count_nonzero(moving) < 0.1 * moving.size
    assert np.abs(np.diff(luma, axis=0)).mean((1, 2)).max() < 2.0  # no flash


def test_fast_makes_the_same_frames_of_the_same_quality(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "video.mp4", 1.0)
    usual = run(lip_sync, video, 1.0, "usual.mp4")
    fast = run(lip_sync, video, 1.0, "fast.mp4", replace(FAST, fast=True))
    assert (fast.frames, fast.generated) == (usual.frames, usual.generated)
    assert usual.output.read_bytes() != fast.output.read_bytes()
    for slow, quick in zip(planes(usual.output), planes(fast.output), strict=True):
        assert np.abs(slow[0].astype(int) - quick[0]).mean() < 1.5
