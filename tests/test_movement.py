"""Movement of the mouth: the same seed gives the same mouth, however it is asked for; its stage; real clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from audio_processor import load_audio
from data.quiet_scenes import SceneMaker, write_scenes
from engines.lite.model import LipSyncModel
from evaluation.reading import Reading, look
from faces.mouth_shape import SHAPE_POINTS, MouthShape, mouth_opening
from models.checkpoint import load_pretrained
from models.movement import MovementModel, step_noise
from models.movement_track import MovementSettings
from models.speech_track import SpeechTrack
from models.syncnet import SyncNetV2
from tests.conftest import REPO
from tests.processed import make_processed
from trainer import main as train
from training.movement_figures import Measures, Predicted
from training.movement_sync import MovementSync, heard_windows
from utils.config import load_config

RESTING = 4.0
SETTINGS = MovementSettings(seed=3, temperature=0.7, steps=3)
BASE_CORRELATION, BASE_SPREAD = 0.3, 0.2  # most that the base may share with the true opening
REAL = ("p009", "p048", "p059")


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> LipSyncModel:
    """The debug size; what the layers would learn is drawn at random, so that all inputs matter."""
    model = LipSyncModel.load(tiny_weights, size="debug")
    torch.manual_seed(0)
    torch.nn.init.normal_(model._movement.out.weight, std=0.3)
    return model


@pytest.fixture(scope="module")
def speech() -> SpeechTrack:
    random = np.random.default_rng(0)
    return SpeechTrack(random.normal(size=(500, 5, 384)).astype(np.float32), random.random(500).astype(np.float32))


class Cut:
    """A sound of which no more than `ahead` steps after a frame are known; notes how far was asked."""

    phonemes = None

    def __init__(self, whole: SpeechTrack, ahead: int) -> None:
        self._whole, self.ahead, self.asked = whole, ahead, 0

    def __len__(self) -> int:
        return len(self._whole)

    def part(self, first: int, stop: int) -> SpeechTrack:
        self.asked = max(self.asked, stop)
        return self._whole.part(first, stop)


class TestMovement:
    def test_the_same_seed_gives_the_same_mouth(self, model, speech):
        times = np.arange(80) / 25
        first, again = (model.movement(speech, RESTING, SETTINGS).shapes(times) for _ in range(2))
        np.testing.assert_array_equal(first, again)
        other = model.movement(speech, RESTING, MovementSettings(seed=4, temperature=0.7, steps=3)).shapes(times)
        assert np.abs(other - first).mean() > 0.1

    @pytest.mark.parametrize("fps", [25.0, 30.0, 23.976, 60.0])
    @pytest.mark.parametrize("block", [1, 7, 12])
    def test_it_does_not_depend_on_how_many_frames_are_asked_for_at_once(self, model, speech, fps, block):
        times = 1.3 + np.arange(100) / fps
        whole = model.movement(speech, RESTING, SETTINGS).shapes(times)
        movement = model.movement(speech, RESTING, SETTINGS)
        parts = [movement.shapes(times[i : i + block]) for i in range(0, len(times), block)]
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)

    def test_it_does_not_depend_on_the_frame_rate(self, model, speech):
        slow = model.movement(speech, RESTING, SETTINGS).shapes(np.arange(100) / 25)
        fast = model.movement(speech, RESTING, SETTINGS).shapes(np.arange(200) / 50)
        np.testing.assert_allclose(fast[::2], slow, atol=1e-4)
        assert np.abs(fast[1::2] - slow).max() < 2 * np.abs(np.diff(slow, axis=0)).max()

    def test_calm_movement_is_smaller(self, model, speech):
        times, mean = np.arange(200) / 25, model.predict_shape(speech, np.arange(200) / 25, RESTING)
        wild, calm = (
            np.std(model.movement(speech, RESTING, MovementSettings(3, heat, 3)).shapes(times) - mean)
            for heat in (1.0, 0.3)
        )
        assert calm < wild

    @pytest.mark.parametrize("ahead", [4, 10, 25])
    def test_no_more_is_heard_than_may_be(self, model, speech, ahead):
        live = Cut(speech, ahead)
        movement, shapes = model.movement(live, RESTING, SETTINGS), []
        for start in range(40, 120, 4):
            times = np.arange(start, start + 4) / 25
            shapes.append(movement.shapes(times))
            assert live.asked <= round(times[-1] * 50) + ahead
        assert np.isfinite(np.concatenate(shapes)).all()

    def test_it_keeps_about_a_second(self, model):
        minute = SpeechTrack(np.zeros((3000, 5, 384), np.float32), np.ones(3000, np.float32))
        movement = model.movement(minute, RESTING, SETTINGS)
        kept = [movement.shapes(np.arange(start, start + 12) / 25) is not None and len(movement._shapes)
                for start in range(0, 1488, 12)]  # fmt: skip
        assert max(kept) < 80

    def test_frames_beyond_the_sound_are_allowed(self, model, speech):
        assert np.isfinite(model.movement(speech, RESTING, SETTINGS).shapes(np.array([9.9, 10.5, 30.0]))).all()

    def test_noise_belongs_to_its_step(self):
        whole = step_noise(0, 50, 10, seed=1)
        np.testing.assert_array_equal(step_noise(17, 5, 10, seed=1), whole[17:22])
        assert abs(whole.mean()) < 0.2 and whole.std() == pytest.approx(1, abs=0.1)
        assert (step_noise(0, 50, 10, seed=2) != whole).any()


def sync_network(folder: Path, kind: str) -> Path:
    """An untrained sync network that looks at shapes or at pixels."""
    sizes = load_config(REPO / "model_config.yaml", ["size=debug"]).model
    chosen = sizes.syncnet_shapes if kind == "shapes" else sizes.syncnet
    torch.manual_seed(0)
    SyncNetV2(**chosen.model_dump()).save_pretrained(folder)
    return folder


def test_a_sync_network_tells_fitting_movement_from_other(tmp_path):
    """The loss is least where what is seen is what is heard; sounds that are not there are no wrong answers."""
    sync = MovementSync.load(sync_network(tmp_path / "sync", "shapes"))
    shapes = torch.randn(2, 24, 10, requires_grad=True)
    heard = sync.network.embed_shapes(shapes).detach()
    counts = torch.ones(2, 9)
    right, wrong = sync.loss(shapes, heard, counts), sync.loss(shapes, heard.flip(1), counts)
    assert right < wrong
    wrong.backward()
    assert shapes.grad.abs().sum() > 0 and not any(p.requires_grad for p in sync.parameters())
    half = torch.cat([heard[:, :5], torch.full_like(heard[:, 5:], 1e3)], dim=1)
    kept = torch.cat([counts[:, :5], torch.zeros(2, 4)], dim=1)
    assert sync.loss(shapes, half, kept).item() == pytest.approx(
        sync.loss(shapes[:, :20], heard[:, :5], kept[:, :5]).item(), rel=1e-3
    )


def test_windows_outside_of_a_clip_do_not_count():
    heard = np.arange(30, dtype=np.float32)[:, None]
    windows, there = heard_windows(heard, np.arange(-3, 30), stop=25)
    assert windows[3:10, 0].tolist() == list(range(7))
    assert there.tolist() == [0.0] * 3 + [1.0] * 7 + [0.0] * 8


@pytest.mark.parametrize("kind", ["shapes", "pixels"])
def test_the_stage_learns_and_its_export_is_used(tmp_path, tiny_weights, kind, capsys):
    """With a sync network of shapes that supervises it; one of pixels is refused."""
    root = make_processed(tmp_path / "data", frames=80)
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        write_scenes(
            SceneMaker(root, split), root / f"{split}_scenes", 0.3,
            lambda sound: random.standard_normal((-(-len(sound) // 320), 5, 384)),
            lambda sound: np.zeros(-(-len(sound) // 320)),
        )  # fmt: skip
    run = ["--config", str(REPO / "model_config.yaml"), "--size", "debug", "--stage", "movement"]
    sets = {
        "data.processed_dir": root,
        "training.common.weights_dir": REPO / "pretrained",
        "training.common.num_workers": 0,
        "training.speech": tiny_weights / "debug" / "generator",
        "training.sync": sync_network(tmp_path / "sync", kind),
        "training.max_steps": 30,
        "training.batch_size": 8,
        "training.validate_every": 15,
    }
    options = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    ended = train([*run, "--output", str(tmp_path / "runs"), "--device", "cpu", *options])
    if kind == "pixels":
        assert ended == 2 and "is no sync network of mouth shapes" in capsys.readouterr().err
        return
    assert ended == 0
    trained = load_pretrained(MovementModel, tmp_path / "runs" / "debug" / "movement" / "export")
    assert (trained.spread != 1).any() and torch.count_nonzero(trained.out.weight) > 0


def test_measures_rank_movement():
    """The true movement is best; half and double have the spread that they have; still mouths are still."""
    shape = MouthShape.load(REPO / "pretrained" / "mouth_shape")
    true = np.cumsum(np.random.default_rng(0).normal(size=(200, shape.num_coefficients)), axis=0) / 10
    measures = Measures(shape, 25)
    for part in (0.0, 0.5, 1.0, 2.0):
        figures = measures.clips([Predicted("p", true, part * true, np.ones(200, bool))])
        assert figures["opening_spread"] == pytest.approx(part) == figures["opening_jerk"]
        assert figures["width_correlation"] == pytest.approx(float(part > 0))


@pytest.fixture(scope="module")
def seen(talking_faces: Path) -> dict[Path, Reading]:
    """What the mesh sees in one clip of each of a few validation people."""
    config = load_config(REPO / "model_config.yaml")
    rows = [line.split("\t") for line in (talking_faces / "manifest.tsv").read_text(encoding="utf-8").splitlines()]
    files = [next(row[0] for row in rows if row[1] == "val" and row[2] == person) for person in REAL]
    videos = [talking_faces / file for file in files]
    return {video: look(video, config) for video in videos}


def test_the_base_does_not_follow_the_old_mouth(seen):
    """On real clips: what the head's pose says of the resting mouth tells next to nothing of the opening."""
    shape = MouthShape.load(REPO / "pretrained" / "mouth_shape")
    for reading in seen.values():
        base = mouth_opening(shape.base(shape.neutral(reading.points, reading.pose), reading.pose))
        true = mouth_opening(reading.points[:, SHAPE_POINTS])
        assert base.std() <= BASE_SPREAD * true.std()
        assert base.std() < 0.02 or abs(np.corrcoef(base, true)[0, 1]) <= BASE_CORRELATION


def test_movement_is_as_large_as_real(seen, lite_weights):
    config = load_config(REPO / "model_config.yaml")
    model, chosen = LipSyncModel.load(lite_weights.parent, "lite"), config.inference
    settings = MovementSettings(chosen.seed, chosen.movement_temperature, chosen.movement_steps)
    clips = []
    for video, reading in seen.items():
        neutral = model.mouth_shape.neutral(reading.points, reading.pose)
        true = model.mouth_shape.encode(reading.points, model.mouth_shape.base(neutral, reading.pose))
        resting = float(mouth_opening(neutral.mouth[None])[0])
        times = (reading.first + np.arange(len(true))) / 25
        said = model.movement(model.hear(load_audio(video, 16000)), resting, settings).shapes(times)
        clips.append(Predicted(video.stem, true, chosen.mouth_gain * said, np.ones(len(true), bool)))
    figures = Measures(model.mouth_shape, 25).clips(clips)
    assert 0.75 < figures["opening_spread"] < 1.55
    assert 0.7 < figures["width_spread"] < 1.55
    assert figures["opening_correlation"] > 0.4
