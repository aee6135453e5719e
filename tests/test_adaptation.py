"""Adaptation to a person: what is learnt from planted habits, what is refused, and that the model itself stays."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import app
from audio_processor import load_audio
from engines.base import Budget, Change, Lesson, Skipped
from engines.lite import picture, speech
from engines.lite.engine import Lite
from engines.lite.model import LipSyncModel
from engines.lite.parts import Heard
from engines.lite.picture import Lessons, Quality, fit_picture
from engines.lite.speech import hidden_reader, ridge_layer
from faces.alignment import STABLE, TEMPLATE
from faces.footage import FPS, Footage, collect_footage, frames_at_25, spread_parts
from faces.mouth_shape import SHAPE_POINTS
from faces.mouth_windows import MouthFrame
from models.audio_encoder import SpeechEncoder
from models.syncnet import SyncNetV2, SyncResult
from pipeline import LipSyncPipeline
from pipeline.adaptation import adapt
from pipeline.judge import Judge, lesson_of
from pipeline.options import Options
from tests import footage as films
from tests.tiny_weights import tiny_config, write_tiny_weights
from utils.config import Config, load_config
from utils.helpers import InputError, parse_seconds
from video_processor import VideoReader

REPO = Path(__file__).resolve().parent.parent
FITS, DOES_NOT = SyncResult(0, 0.6, 0.7), SyncResult(-5, 0.05, 1.2)
QUICK = Options(steps=1, adapt=60.0, codec="ffv1", rest="cut")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny random networks with a judge."""
    folder = write_tiny_weights(tmp_path_factory.mktemp("weights"))
    judge = load_config(REPO / "model_config.yaml", ["size=debug"]).model.syncnet_judge
    SyncNetV2(**judge.model_dump()).save_pretrained(folder / "debug" / "syncnet_judge")
    return folder


@pytest.fixture(scope="module")
def config(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Config:
    path = tiny_config(tmp_path_factory.mktemp("config"), weights)
    # One step is too few to learn the picture: most tests are about the speech.
    return load_config(path, ["adaptation.min_footage_s=1.0", "adaptation.ridge=10.0", "adaptation.max_steps=1"])


@pytest.fixture(scope="module")
def lip_sync(config: Config) -> LipSyncPipeline:
    return LipSyncPipeline.load(config, torch.device("cpu"))


@pytest.fixture(scope="module")
def model(weights: Path) -> LipSyncModel:
    return LipSyncModel.load(weights, size="debug")


@pytest.fixture(scope="module")
def engine(model: LipSyncModel, config: Config) -> Lite:
    return Lite.of(model, config)


@pytest.fixture(scope="module")
def judge(weights: Path) -> Judge:
    return Judge.load(weights, "debug", torch.device("cpu"))


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Judge, "sync", lambda *_: FITS)


def state(model: LipSyncModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.speech_model.state_dict().items()}


def person_with_habits(model: LipSyncModel, samples: np.ndarray, offset: int = 0, amount: float = 1.0) -> Footage:
    """Meshes whose lips do what the model expects of the sound, and `amount` times something of their own.

    The own part depends on the activations before the last layer, so a new last layer can learn it. The picture is
    `offset` frames behind the sound.
    """
    frames = len(samples) * FPS // 16000
    times = (np.arange(frames) + offset) / FPS
    heard = model.hear(samples)
    hidden = hidden_reader(model).predict_shape(heard, times, 5.0)
    z = (hidden - hidden.mean(0)) / (hidden.std(0) + 1e-6)
    habit = z @ np.random.default_rng(3).normal(size=(z.shape[1], model.mouth_shape.num_coefficients))
    shape = model.predict_shape(heard, times, 5.0) + amount * 0.3 * habit
    points = np.full((frames, 468, 2), 80.0, np.float32)
    points[:, STABLE] = TEMPLATE[:, :2] - (48, 88)
    pose = np.zeros((frames, 3), np.float32)
    base = 80 + 20 * np.random.default_rng(4).normal(size=(len(SHAPE_POINTS), 2))
    points[:, SHAPE_POINTS] = model.mouth_shape.decode(shape.astype(np.float32), np.float32(base)[None])
    windows = np.random.default_rng(5).integers(0, 255, (frames, 160, 160, 3), dtype=np.uint8)
    return Footage(0, windows, points, pose)


def plenty() -> Budget:
    return Budget(time.monotonic() + 600)


def test_a_habit_of_the_person_is_learnt_and_the_model_stays(
    model: LipSyncModel, engine: Lite, judge: Judge, config: Config, fitting: None
) -> None:
    samples = films.speech_like(8.0, 16000, seed=1)
    person, before = person_with_habits(model, samples), state(model)
    adapted, report = adapt(engine, [person], samples, judge, config.adaptation, plenty())

    assert report.skipped is None and report.sync == FITS and report.footage_s == pytest.approx(8.0)
    assert report.lips_px.after < 0.6 * report.lips_px.before
    assert report.lips_px.kept and f"to {report.lips_px.after:.2f} px" in report.sentence()
    assert all(torch.equal(value, before[name]) for name, value in model.speech_model.state_dict().items())

    other = films.speech_like(4.0, 16000, seed=2)  # words that were not learnt from
    true, heard, times = person_with_habits(model, other), model.hear(other), np.arange(100) / FPS
    neutral = model.mouth_shape.neutral(true.points, true.pose)
    shown = model.mouth_shape.encode(true.points, model.mouth_shape.base(neutral, true.pose))
    error = [np.std(m.predict_shape(heard, times, 5.0) - shown, axis=0).mean() for m in (model, adapted.model)]
    assert error[1] < 0.8 * error[0]


def test_sound_that_is_a_little_late_is_learnt_from_at_the_right_time(
    model: LipSyncModel, engine: Lite, judge: Judge, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = films.speech_like(8.0, 16000, seed=1)
    person = person_with_habits(model, samples, offset=2)
    after = {}
    for offset in (0, 2):
        monkeypatch.setattr(Judge, "sync", lambda *_, offset=offset: SyncResult(offset, 0.6, 0.7))
        after[offset] = adapt(engine, [person], samples, judge, config.adaptation, plenty())[1]
    assert after[2].lips_px.after < 0.7 * (after[0].lips_px.after if after[0].lips_px else after[2].lips_px.before)


def test_a_mouth_that_has_nothing_to_do_with_the_sound_changes_nothing(
    model: LipSyncModel, engine: Lite, judge: Judge, config: Config, fitting: None
) -> None:
    samples = films.speech_like(4.0, 16000)
    still = person_with_habits(model, samples, amount=0.0)
    noise = np.random.default_rng(0).normal(scale=2.0, size=(len(still), len(SHAPE_POINTS), 2))
    still.points[:, SHAPE_POINTS] += noise.astype(np.float32)
    same, report = adapt(engine, [still], samples, judge, config.adaptation, plenty())
    assert same is engine
    assert report.sentence().startswith("Adaptation skipped: learning from the video did not help (error of the lips")
    assert "(not kept)" in report.sentence() and not report.lips_px.kept


@pytest.mark.parametrize("found", [DOES_NOT, SyncResult(0, 0.1, 1.0), SyncResult(6, 0.6, 0.7)])
def test_sound_that_does_not_fit_the_picture_is_not_learnt_from(
    model: LipSyncModel, engine: Lite, judge: Judge, config: Config, monkeypatch: pytest.MonkeyPatch, found: SyncResult
) -> None:
    monkeypatch.setattr(Judge, "sync", lambda *_: found)
    samples = films.speech_like(4.0, 16000)
    same, report = adapt(engine, [person_with_habits(model, samples)], samples, judge, config.adaptation, plenty())
    assert same is engine and report.sync == found
    assert "the sound of the video does not fit its picture" in report.sentence()
    assert f"confidence {found.confidence:.2f}" in report.sentence()


def test_without_a_judge_or_time_nothing_is_learnt(
    model: LipSyncModel, engine: Lite, judge: Judge, config: Config
) -> None:
    samples = films.speech_like(4.0, 16000)
    person = person_with_habits(model, samples)
    assert "no weights" in adapt(engine, [person], samples, None, config.adaptation, plenty())[1].skipped
    late = Budget(time.monotonic() - 1)
    assert "time given was over" in adapt(engine, [person], samples, judge, config.adaptation, late)[1].skipped


def test_the_offset_of_scattered_windows_is_found(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings are replaced by ones whose true offset is known."""
    codes = torch.nn.functional.normalize(torch.randn(200, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    network = SyncNetV2.from_pretrained(weights / "debug" / "syncnet_judge")
    encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder")
    monkeypatch.setattr(encoder, "features", lambda samples: np.zeros((400, 5, 384), np.float16))
    monkeypatch.setattr(
        network, "visual", lambda frames: codes[frames[:, 0, 0, 0, 0].mul(127.5).add(127.5).round().long()]
    )
    monkeypatch.setattr(network, "embed_audio", lambda features: codes.roll(3, dims=0))
    stretches = []
    for first in (20, 90):
        windows = np.zeros((40, 160, 160, 3), np.uint8)
        windows += np.arange(first, first + 40, dtype=np.uint8)[:, None, None, None]
        stretches.append(Footage(first, windows, np.zeros((40, 468, 2), np.float32), np.zeros((40, 3), np.float32)))
    found = Judge(network, encoder).sync(Lesson(stretches, np.zeros(128000), [20, 90]), 30, plenty())
    assert found.offset == 3 and found.distance < 1e-3 and found.confidence > 1


def looking(model: LipSyncModel, samples: np.ndarray) -> Heard:
    """A person whose mouth windows are a real picture, a little brighter in each frame."""
    person = person_with_habits(model, samples, amount=0.0)
    face = films.cv2.resize(films.portrait()[100:200, 180:280], (160, 160)).astype(np.float32)
    for frame, window in enumerate(person.windows):
        window[:] = face / 2 + frame
    lesson = lesson_of([person], samples)
    return Heard(lesson, model.hear(lesson.samples))


def test_windows_that_check_are_never_learnt_from(model: LipSyncModel) -> None:
    heard = looking(model, films.speech_like(4.0, 16000))
    lessons = Lessons(model, heard, 3)
    left_out = {frame for place in lessons.left_out for frame in range(place.first, place.stop)}
    pictures = heard.footage[0].windows
    assert len(lessons.left_out) == 3 and len(left_out) == 24
    random = np.random.default_rng(0)
    for _ in range(8):
        window, drafts, conditions = lessons.draw(random)
        assert len(drafts) == 16
        first = int(np.argmin(np.abs(pictures.astype(int) - window[0]).mean((1, 2, 3))))
        assert np.array_equal(window, pictures[first : first + 16])
        assert not left_out & set(range(first, first + 16))
        assert conditions.spatial.shape[:2] == (1, 16)


def test_the_picture_is_learnt_on_a_copy(model: LipSyncModel, config: Config) -> None:
    heard = looking(model, films.speech_like(4.0, 16000))
    before = {name: value.clone() for name, value in model.generator.state_dict().items()}
    for rate in (1e-2, 2e-2, 3e-2):  # so small a network learns at one of them, depending on what it begins from
        settings = config.adaptation.model_copy(update={"max_steps": 12, "learning_rate": rate})
        adapted, change, steps = fit_picture(model, heard, settings, plenty())
        if change.kept:
            break
    assert steps == 12 and change.kept and change.after > change.before
    assert all(torch.equal(value, before[name]) for name, value in model.generator.state_dict().items())
    assert any(not torch.equal(value, before[name]) for name, value in adapted.generator.state_dict().items())
    assert all(parameter.grad is None for parameter in model.generator.parameters())

    hopeless = settings.model_copy(update={"learning_rate": 1e3})
    same, change, _ = fit_picture(model, heard, hopeless, plenty())
    assert same is model and not change.kept and not change.after > change.before


class Countdown:
    """A budget in which each look at the clock costs a second."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def left(self) -> float:
        self.seconds -= 1
        return self.seconds


@pytest.mark.parametrize(("detail", "kept"), [(4.9, True), (4.0, False)])
def test_a_picture_that_is_better_only_by_blur_is_not_kept(
    model: LipSyncModel, config: Config, monkeypatch: pytest.MonkeyPatch, detail: float, kept: bool
) -> None:
    heard = looking(model, films.speech_like(4.0, 16000))
    found = iter([Quality(20.0, 5.0), Quality(21.0, detail)])
    monkeypatch.setattr(Lessons, "quality", lambda *_: next(found))
    monkeypatch.setattr(picture, "_train", lambda model, *_: (model.generator, 10))
    assert fit_picture(model, heard, config.adaptation, plenty())[1] == Change(20.0, 21.0, kept)


def test_learning_the_picture_ends_in_time(
    model: LipSyncModel, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config.adaptation.model_copy(update={"max_steps": 10**6})
    heard = looking(model, films.speech_like(4.0, 16000))
    monkeypatch.setattr(Lessons, "quality", lambda *_: Quality(20.0, 5.0))
    _, change, steps = fit_picture(model, heard, settings, Countdown(14.0))
    assert 10 <= steps <= 13 and not change.kept
    with pytest.raises(Skipped, match="not enough time"):
        fit_picture(model, heard, settings, Countdown(5.0))


def test_the_new_layer_leaves_the_mean_alone() -> None:
    random = np.random.default_rng(0)
    hidden, missing = random.normal(2, 1, (300, 8)), random.normal(5, 1, (300, 3))
    missing += hidden @ random.normal(size=(8, 3))
    weight, bias = ridge_layer(hidden, missing, 1.0)
    added = hidden @ weight + bias
    assert np.allclose(added.mean(0), 0, atol=1e-8)
    assert np.corrcoef(added[:, 0], missing[:, 0])[0, 1] > 0.8


def run(lip_sync: LipSyncPipeline, video: Path, options: Options = QUICK, name: str = "out.mkv"):
    audio = films.make_sound(video.parent / "speech.wav", 0.4)
    return lip_sync.run(video, audio, video.parent / name, options)


def pictures(path: Path) -> np.ndarray:
    with VideoReader(path) as reader:
        return np.stack([frame.image for frame in reader])


def test_the_pipeline_adapts_to_a_video_and_the_next_job_starts_afresh(
    lip_sync: LipSyncPipeline, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = films.make_video(tmp_path / "video.mp4", 1.6)
    seen = []

    def enough(hidden: np.ndarray, *_: object) -> tuple[float, float]:
        seen.append(len(hidden))
        return 2.0, 1.0  # the portrait does not speak: let any change count

    monkeypatch.setattr(Judge, "sync", lambda *_: FITS)
    monkeypatch.setattr(speech, "try_layer", enough)
    plain = run(lip_sync, video, replace(QUICK, adapt=0.0), "plain.mkv")
    summary = run(lip_sync, video)
    again = run(lip_sync, video, replace(QUICK, adapt=0.0), "again.mkv")

    assert plain.adaptation is None and again.adaptation is None
    assert summary.adaptation.skipped is None and summary.adaptation.lips_px == Change(2.0, 1.0, kept=True)
    assert seen == [40] and summary.adaptation.footage_s == pytest.approx(1.6)
    assert 0 < summary.adaptation.seconds < summary.seconds
    assert np.array_equal(pictures(plain.output), pictures(again.output))
    assert not np.array_equal(pictures(plain.output), pictures(summary.output))


def test_a_video_that_does_not_fit_comes_out_as_without_adaptation(
    lip_sync: LipSyncPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Judge, "sync", lambda *_: DOES_NOT)
    video = films.make_video(tmp_path / "video.mp4", 1.6)
    summary = run(lip_sync, video)
    plain = run(lip_sync, video, replace(QUICK, adapt=0.0), "plain.mkv")
    assert "does not fit its picture (confidence 0.05, offset -5 frames)" in summary.adaptation.skipped
    assert np.array_equal(pictures(plain.output), pictures(summary.output))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: films.make_portrait(folder / "portrait.png"), "a still picture shows nobody speaking"),
        (lambda folder: films.make_video(folder / "mute.mp4", 1.2, sound=False), "no sound of its own"),
        (lambda folder: films.make_video(folder / "short.mp4", 0.8), "only 0.8 s"),
    ],
)
def test_inputs_that_cannot_be_learnt_from_say_why(lip_sync, tmp_path: Path, make, reason: str) -> None:
    summary = run(lip_sync, make(tmp_path))
    assert reason in summary.adaptation.sentence() and summary.generated > 0


def test_a_stop_during_adaptation_is_obeyed(lip_sync: LipSyncPipeline, tmp_path: Path) -> None:
    video = films.make_video(tmp_path / "video.mp4", 1.6)
    audio = films.make_sound(tmp_path / "speech.wav", 0.4)
    calls = []

    def stop(done: int, total: int | None) -> None:
        calls.append(done)
        if len(calls) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lip_sync.run(video, audio, tmp_path / "out.mkv", QUICK, stop)
    assert calls == [0] * 5 and not (tmp_path / "out.mkv").exists()


def test_little_time_is_kept(lip_sync: LipSyncPipeline, tmp_path: Path, fitting: None) -> None:
    video = films.make_video(tmp_path / "video.mp4", 12.0)
    summary = run(lip_sync, video, replace(QUICK, adapt=1.0))
    assert summary.adaptation.seconds < 6.0 and summary.adaptation.footage_s < 12.0


@pytest.mark.parametrize(("text", "seconds"), [("60s", 60), ("90", 90), ("1m", 60), ("1.5m", 90), ("2.5", 2.5)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5", "1h", "s", "nan", "1 2", "1e3"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="60s, 90 or 1.5m"):
        parse_seconds(text)


@pytest.mark.parametrize("value", ["soon", "0.2s", "500m"])
def test_a_bad_time_on_the_command_line_is_one_sentence(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video, sound = films.make_video(tmp_path / "v.mp4", 0.2), films.make_sound(tmp_path / "a.wav", 0.2)
    files = ["--video", str(video), "--audio", str(sound), "--output", str(tmp_path / "o.mp4")]
    assert app.main(["--mode", "cli", *files, f"--adapt={value}"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: The time") and "\n" not in error


def test_parts_are_spread_over_the_video() -> None:
    assert spread_parts(12.0, 30.0, 3.0) == spread_parts(None, 30.0, 3.0) == [(0.0, 30.0)]
    parts = spread_parts(600.0, 30.0, 3.0)
    assert len(parts) == 10 and sorted(parts)[0] == (0.0, 3.0) and sorted(parts)[-1][1] == pytest.approx(600.0)
    half = sorted(parts[:5])  # whoever stops early has seen all of it, too
    assert half[0][0] == 0.0 and half[-1][0] > 500
    assert all(abs(start * FPS - round(start * FPS)) < 1e-6 for start, _ in parts)


@pytest.mark.parametrize("fps", [15, 25, 60])
def test_a_part_of_a_video_is_read_at_25_frames_a_second(tmp_path: Path, fps: int) -> None:
    path = films.make_video(tmp_path / "video.mp4", 3.0, fps=fps, numbered=True)
    with VideoReader(path) as reader:
        part = list(frames_at_25(reader.between(1.0, 2.0), 25))
        start = list(frames_at_25(reader.between(0.0, 0.4)))
    assert [round(f.time * 25) for f in part] == list(range(25, 25 + len(part))) and abs(len(part) - 25) <= 1
    assert all(abs(films.read_number(f.image) / fps - f.time) < 1 / min(fps, 25) for f in part)
    assert abs(len(start) - 10) <= 1 and films.read_number(start[0].image) <= 1


def test_footage_ends_at_gaps_and_cuts() -> None:
    window, points = np.zeros((160, 160, 3), np.uint8), np.zeros((468, 2), np.float32)

    def mouth(number: int) -> MouthFrame:
        reason = "no face" if number in (20, 21) else None
        return MouthFrame(None, number / FPS, (100, 100), int(number >= 60), reason, window, None, points)

    found = list(collect_footage(map(mouth, range(70)), 16))
    assert [(f.first, len(f)) for f in found] == [(0, 20), (22, 38)]


def test_a_real_person_is_adapted_to_and_foreign_sound_is_noticed(
    lite_weights: Path, talking_faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(REPO / "model_config.yaml")
    lip_sync = LipSyncPipeline.load(config, torch.device("cpu"))
    quick = replace(QUICK, adapt=25.0)
    clip = talking_faces / "val" / "videos" / "hangznjucuhk_p117_0000.mp4"
    video = tmp_path / clip.name  # beside it results may be written
    video.symlink_to(clip)
    summary = run(lip_sync, video, quick)
    assert summary.adaptation.sync is not None and abs(summary.adaptation.sync.offset) <= 3
    assert summary.adaptation.sync.confidence > config.adaptation.min_sync_confidence
    assert summary.adaptation.skipped is None or "did not help" in summary.adaptation.skipped

    other = load_audio(REPO / "examples" / "speech.wav")
    monkeypatch.setattr("pipeline.study._own_sound", lambda *_: np.resize(other, 160000))
    summary = run(lip_sync, video, quick)
    assert "does not fit its picture" in summary.adaptation.skipped
