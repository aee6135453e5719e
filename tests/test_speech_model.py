"""The speech model's inputs beside the sound: voice activity, the person's resting mouth, soft phonemes; its stage."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data.background_sounds import background
from data.quiet_scenes import CLOSING_S, SceneMaker, write_scenes
from faces.mouth_shape import CLOSED_PART, MouthShape, mouth_opening
from latent_diffusion import LatentLipDiffusion
from models.checkpoint import load_pretrained
from models.phonemes import SYMBOLS, Phoneme, lip_closure, phoneme_track, steps_around
from models.speech_model import SpeechModel
from models.speech_track import SpeechTrack
from tests.conftest import REPO
from tests.processed import make_processed, resting_mouth
from tools.replace_speech import main as replace_speech
from training.speech import SpeechSampler, SpeechStage
from utils.config import Config, load_config

STEPS = 60


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    torch.manual_seed(0)
    return SpeechModel(width=32, layers=1, heads=2, tokens_per_frame=2, knows_rest=True).eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, STEPS, 5, 384), torch.arange(25).expand(2, -1) / 25


@pytest.fixture(scope="module")
def shape() -> MouthShape:
    return MouthShape.load(REPO / "pretrained" / "mouth_shape")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A processed data set with half a minute of scenes; features are random, for speed."""
    root = make_processed(tmp_path_factory.mktemp("data"))
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        write_scenes(
            SceneMaker(root, split),
            root / f"{split}_scenes",
            0.5,
            lambda sound: random.standard_normal((-(-len(sound) // 320), 5, 384)),
            lambda sound: np.zeros(-(-len(sound) // 320)),
        )
    return root


@pytest.fixture(scope="module")
def config(scenes: Path) -> Config:
    sizes = ["size=debug", f"data.processed_dir={scenes}", "training.speech.scene_share=0.5"]
    return load_config(REPO / "model_config.yaml", [*sizes, f"training.common.weights_dir={REPO / 'pretrained'}"])


class TestInputs:
    def test_an_untrained_model_takes_no_notice_of_pauses_and_persons(self, model, inputs):
        """So that trained weights without these inputs are a start."""
        speech, times = inputs
        plain = model(speech, None, times)
        told = model(speech, None, times, activity=torch.rand(2, STEPS), resting=torch.tensor([1.0, 9.0]))
        torch.testing.assert_close(told.shape, plain.shape)
        torch.testing.assert_close(told.tokens, plain.tokens)

    def test_trained_ones_do(self, inputs):
        torch.manual_seed(0)
        model = SpeechModel(width=32, layers=1, heads=2, tokens_per_frame=2, knows_rest=True).eval()
        torch.nn.init.normal_(model.fusion.pause.weight)
        torch.nn.init.normal_(model.temporal.person.gap.weight)
        speech, times = inputs
        plain = model(speech, None, times)
        silent = model(speech, None, times, activity=torch.zeros(2, STEPS))
        other = model(speech, None, times, resting=torch.tensor([1.0, 9.0]))
        assert not torch.allclose(silent.tokens, plain.tokens, atol=1e-2)
        torch.testing.assert_close(other.tokens, plain.tokens)
        assert not torch.allclose(other.shape, plain.shape, atol=1e-2)
        torch.testing.assert_close(model(speech, None, times, activity=torch.ones(2, STEPS)).shape, plain.shape)

    def test_certain_phonemes_are_the_same_as_ids(self, model, inputs):
        speech, times = inputs
        ids = torch.randint(0, 128, (2, STEPS))
        certain = torch.nn.functional.one_hot(ids, 128).float()
        for sound in (speech, None):
            torch.testing.assert_close(model(sound, certain, times).shape, model(sound, ids, times).shape)

    def test_a_track_has_one_length(self):
        track = SpeechTrack(np.zeros((9, 5, 384), np.float32), np.arange(9.0))
        assert len(track.part(2, 5)) == 3 and track.part(2, 5).activity.tolist() == [2, 3, 4]
        with pytest.raises(ValueError, match="9 steps of features, but 8"):
            SpeechTrack(np.zeros((9, 5, 384)), np.zeros(8))


class TestScenes:
    def test_same_chance_same_scene(self, scenes):
        maker = SceneMaker(scenes, "train")
        one, same, other = (maker.make(np.random.default_rng(seed)) for seed in (3, 3, 4))
        np.testing.assert_array_equal(one.samples, same.samples)
        assert len(one.samples) != len(other.samples) or (one.samples != other.samples).any()

    def test_the_mouth_is_closed_in_pauses(self, scenes):
        for folder in sorted((scenes / "train_scenes").iterdir()):
            with np.load(folder / "tracks.npz") as tracks:
                shape, spoken = tracks["shape"], tracks["spoken"]
            near = np.convolve(spoken, np.ones(2 * round(CLOSING_S * 25) + 1), mode="same") > 0
            assert (shape[~near] == 0).all() and (~near).any()
            assert spoken.all() or np.abs(np.diff(shape[near & ~spoken], axis=0)).max(initial=0) < 3

    @pytest.mark.parametrize("kind", ["music", "noise", "murmur", "wind", "hum"])
    def test_backgrounds_are_sounds_of_one_loudness(self, kind):
        for seed in range(4):
            sound = background(kind, 24000, 16000, np.random.default_rng(seed))
            assert sound.shape == (24000,) and np.isfinite(sound).all()
            assert np.sqrt(np.mean(sound**2)) == pytest.approx(1, rel=1e-3)


class TestStage:
    def test_samples_come_from_clips_and_scenes(self, config):
        settings = config.training.speech
        sampler = SpeechSampler(config, settings, settings.scene_share)
        items = [sampler.draw(np.random.default_rng(seed)) for seed in range(20)]
        assert {bool(item["activity"].max() > 0.5) for item in items} == {True, False}
        assert all(item["activity"].shape == (100,) and item["shape"].shape == (50, 10) for item in items)

    def test_closing_the_lips_where_they_are_closed_lowers_the_loss(self, config):
        stage = SpeechStage()
        stage.build(config, torch.device("cpu"))
        closing = torch.zeros(10)
        closing[0] = -2.0
        true = closing.expand(1, 25, 10)
        batch = {"shape": true, "valid": torch.ones(1, 25, dtype=torch.bool), "resting": torch.tensor([5.0])}
        losses = [float(stage._losses(part * true, batch)["gap"]) for part in (0.0, 0.5, 1.0)]
        assert losses[0] > losses[1] > losses[2] == 0

    def test_a_start_from_exported_weights_undoes_the_gains_of_the_export(self, config, tmp_path):
        stage = SpeechStage()
        stage.build(config, torch.device("cpu"))
        torch.nn.init.normal_(stage.model.fusion.pause.weight)
        trained = stage.model.fusion.pause.weight.detach().clone()
        stage.model.eval()
        stage.finish()
        torch.testing.assert_close(stage.model.fusion.pause.weight, config.training.speech.pause_gain * trained)
        stage.model.save_pretrained(tmp_path)
        stage.initialise(tmp_path)
        torch.testing.assert_close(stage.model.fusion.pause.weight, trained)
        assert (stage.model.shape_gain == 1).all()

    def test_validation_measures_pauses(self, config):
        stage = SpeechStage()
        stage.build(config, torch.device("cpu"))
        stage.model.eval()
        metrics = stage.validate(0, None)
        assert {"pause_gap_px", "pause_chewing", "closed_recall", "closed_precision", "score"} <= set(metrics)


def test_lips_are_not_pressed_into_each_other(shape):
    base = np.repeat(resting_mouth()[None], 3, axis=0).astype(np.float32)
    coefficients = np.zeros((3, 10), np.float32)
    coefficients[:, 0] = (-9, 0, 2)
    points = shape.decode(coefficients, base)
    kept = shape.parted(points, base)
    assert mouth_opening(points)[0] < 0
    assert mouth_opening(kept)[0] == pytest.approx(CLOSED_PART * mouth_opening(base)[0], abs=1e-3)
    np.testing.assert_array_equal(kept[1:], points[1:])


def test_lips_meet_at_p_b_m_and_only_there(shape):
    said = [Phoneme("a", SYMBOLS.index("a"), 0.0, 0.4), Phoneme("m", SYMBOLS.index("m"), 0.4, 0.5)]
    track, times = phoneme_track(said, 50), np.arange(25) / 25
    met = (track == SYMBOLS.index("m")).astype(np.float32)
    amount = lip_closure(met, 0, times, 0.06)
    assert amount[[10, 11, 12]] == pytest.approx(1.0)
    assert 0 < amount[9] < 1 and amount[:8].max() == amount[15:].max() == 0
    assert lip_closure(met[25:], 25, times, 0.06).max() == 0
    np.testing.assert_allclose(lip_closure(met / 2, 0, times, 0.06), amount / 2)
    first, stop = steps_around(times[9:12], 0.06)
    np.testing.assert_array_equal(lip_closure(met[first:stop], first, times[9:12], 0.06), amount[9:12])
    base = np.repeat(resting_mouth()[None], 25, axis=0).astype(np.float32)
    points = shape.decode(np.ones((25, 10), np.float32), base)
    closed = shape.closed(points, base, amount)
    assert mouth_opening(closed)[11] == pytest.approx(CLOSED_PART * mouth_opening(base)[11], abs=1e-3)
    np.testing.assert_array_equal(closed[:8], points[:8])
    pressed = shape.closed(closed, base, np.ones(25))
    np.testing.assert_allclose(shape.closed(pressed, base, amount), pressed, atol=1e-4)


class TestReplaceSpeech:
    def test_only_the_speech_model_changes(self, tiny_weights, tmp_path):
        generator, speech = tmp_path / "generator", tmp_path / "speech"
        shutil.copytree(tiny_weights / "debug" / "generator", generator)
        before = load_pretrained(LatentLipDiffusion, generator)
        torch.manual_seed(9)
        SpeechModel(**before.config.speech_settings).save_pretrained(speech)
        assert replace_speech(["--generator", str(generator), "--speech", str(speech)]) == 0
        after, wanted = load_pretrained(LatentLipDiffusion, generator), load_pretrained(SpeechModel, speech)
        for name, value in wanted.state_dict().items():
            torch.testing.assert_close(after.speech.state_dict()[name], value.half().float())
        torch.testing.assert_close(after.unet.conv_in.weight, before.unet.conv_in.weight, atol=1e-3, rtol=1e-3)

    def test_other_sizes_are_refused(self, tiny_weights, tmp_path, capsys):
        generator = tmp_path / "generator"
        shutil.copytree(tiny_weights / "debug" / "generator", generator)
        SpeechModel(width=48, layers=1, heads=2).save_pretrained(tmp_path / "speech")
        assert replace_speech(["--generator", str(generator), "--speech", str(tmp_path / "speech")]) == 2
        assert "error:" in capsys.readouterr().err
        assert (generator / "config.json").is_file()
