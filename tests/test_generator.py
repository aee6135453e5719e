"""Speech model, generator and their training: shapes, missing inputs, learning, sampling, saving."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from engines.base import Style
from engines.lite.model import LipSyncModel, Seen
from faces.bank import MouthBank, MouthPicker, lips_of, mouth_of
from faces.warp import lips_mask
from latent_diffusion import (
    Conditions,
    LatentLipDiffusion,
    lips_of_sketch,
    lips_of_window,
    rim_mask,
    shared_noise,
)
from models.autoencoder import MouthAutoencoder
from models.checkpoint import load_pretrained
from models.face_encoder import FaceEncoder
from models.speech_model import SpeechModel
from models.syncnet import SyncNetV2
from models.temporal_encoder import read_at
from tests.processed import make_processed, resting_mouth
from trainer import main
from utils.config import load_config
from utils.helpers import InputError

REPO = Path(__file__).resolve().parent.parent
FRAMES = 6


@pytest.fixture(scope="module")
def sizes():
    return load_config(REPO / "model_config.yaml", ["size=debug"]).model


@pytest.fixture
def speech_model(sizes) -> SpeechModel:
    torch.manual_seed(0)
    return SpeechModel(**sizes.speech.model_dump()).eval()


@pytest.fixture
def generator(sizes) -> LatentLipDiffusion:
    """Random weights, the last layer too, which is zero before training."""
    torch.manual_seed(0)
    model = LatentLipDiffusion(speech_settings=sizes.speech.model_dump(), **sizes.generator.model_dump()).eval()
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.05)
    return model


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_processed(tmp_path_factory.mktemp("processed"), people=3, clips=2, frames=32)


@pytest.fixture(scope="module")
def weights(sizes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frozen networks as the generator stage wants them, untrained."""
    folder = tmp_path_factory.mktemp("frozen")
    torch.manual_seed(0)
    MouthAutoencoder(**sizes.autoencoder.model_dump()).save_pretrained(folder / "debug" / "autoencoder")
    SyncNetV2(**sizes.syncnet.model_dump()).save_pretrained(folder / "debug" / "syncnet")
    SpeechModel(**sizes.speech.model_dump()).save_pretrained(folder / "debug" / "speech")
    (folder / "mouth_shape").symlink_to(REPO / "pretrained" / "mouth_shape", target_is_directory=True)
    return folder


def train(
    stage: str, data: Path, weights: Path, output: Path, steps: int, *extra: str, arguments: Sequence[str] = ()
) -> int:
    settings = {
        "data.processed_dir": data, "training.common.weights_dir": weights, "training.common.num_workers": 0,
        "training.max_steps": steps, "training.validate_every": steps, "training.warmup_steps": 1,
        "training.precision": "fp32",
    }  # fmt: skip
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    place = ["--stage", stage, "--size", "debug", "--output", str(output), "--device", "cpu"]
    return main([*place, *arguments, *pairs, *(part for pair in extra for part in ("--set", pair))])


def heard(steps: int = 60, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Speech features, phonemes and frame times."""
    torch.manual_seed(1)
    times = torch.arange(FRAMES)[None].repeat(batch, 1) / 25 + 0.3
    return torch.randn(batch, steps, 5, 384), torch.randint(0, 128, (batch, steps)), times


def random_conditions(model: LatentLipDiffusion, batch: int = 1, seed: int = 2, **keep: torch.Tensor) -> Conditions:
    torch.manual_seed(seed)
    speech, _, times = heard(batch=batch)
    context = model.predict_shape(speech, None, times)
    faces = model.face_encoder(torch.rand(batch, 2, 3, 160, 160) * 2 - 1, torch.randn(batch, 2, 10))
    draft = torch.randn(batch, FRAMES, 16, 12, 12)
    sketch = torch.rand(batch, FRAMES, 3, 24, 24)
    return model.conditions(draft, sketch, context.tokens, faces, **keep)


class TestSpeechModel:
    def test_either_input_may_be_missing(self, speech_model):
        speech, phonemes, times = heard()
        both = speech_model(speech, phonemes, times)
        sound, text = speech_model(speech, None, times), speech_model(None, phonemes, times)
        for context in (both, sound, text):
            assert context.tokens.shape == (2, FRAMES, 2, 32)
            assert context.shape.shape == (2, FRAMES, 10)
            assert torch.isfinite(context.shape).all()
        assert (sound.gate == 1).all()
        assert (text.gate == 0).all()
        assert ((both.gate > 0) & (both.gate < 1)).all()
        assert not torch.allclose(both.shape, sound.shape)
        assert not torch.allclose(both.shape, text.shape)

    def test_flags_of_samples_mean_the_same_as_a_missing_input(self, speech_model):
        speech, phonemes, times = heard()
        no, yes = torch.tensor([False, True]), torch.tensor([True, True])
        mixed = speech_model(speech, phonemes, times, yes, no)
        torch.testing.assert_close(mixed.shape[0], speech_model(speech, None, times).shape[0])
        torch.testing.assert_close(mixed.shape[1], speech_model(speech, phonemes, times).shape[1])
        silent = speech_model(speech, phonemes, times, no, yes)
        torch.testing.assert_close(silent.shape[0], speech_model(None, phonemes, times).shape[0])

    def test_nothing_at_all_is_an_error(self, speech_model):
        with pytest.raises(ValueError, match="speech features or phonemes"):
            speech_model(None, None, torch.zeros(1, 1))

    def test_a_frame_hears_only_its_neighbourhood(self, speech_model):
        speech, _, _ = heard(steps=200, batch=1)
        time = torch.tensor([[2.0]])
        before = speech_model(speech, None, time).shape
        reach = speech_model.context_steps
        far = speech.clone()
        far[:, : 100 - reach - 1] += 5
        far[:, 100 + reach + 1 :] += 5
        torch.testing.assert_close(speech_model(far, None, time).shape, before)
        near = speech.clone()
        near[:, 105:108] += 5
        assert not torch.allclose(speech_model(near, None, time).shape, before, atol=1e-3)

    def test_frames_are_read_at_their_time(self):
        ramp = torch.arange(50.0)[None, :, None]
        read = read_at(ramp, torch.tensor([[0.01, 0.03, 0.5, 0.505, 9.0, -3.0]]))
        torch.testing.assert_close(read[0, :, 0], torch.tensor([0.0, 1.0, 24.5, 24.75, 49.0, 0.0]))

    def test_stage_learns_the_mouth_from_the_sound(self, data, tmp_path, weights):
        sizes = ["models.debug.speech.dropout=0.1", "training.batch_size=8", "training.learning_rate=5e-3"]
        others = ["training.window_s=1.2", "training.scene_share=0"]
        assert train("speech", data, weights, tmp_path, 40, *others, *sizes) == 0
        run = tmp_path / "debug" / "speech"
        last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
        assert last["coefficient_0"] > 0.8
        exported = load_pretrained(SpeechModel, run / "export")
        assert exported.shape_gain[0] != 1


class TestFaceEncoder:
    def test_tokens_do_not_depend_on_the_order_of_references(self):
        torch.manual_seed(0)
        encoder = FaceEncoder(16, 32, 4, 10).eval()
        images, shapes = torch.rand(2, 3, 3, 160, 160), torch.randn(2, 3, 10)
        tokens = encoder(images, shapes)
        assert tokens.shape == (2, 4, 32)
        torch.testing.assert_close(encoder(images.flip(1), shapes.flip(1)), tokens, atol=1e-5, rtol=1e-4)
        assert not torch.allclose(encoder(images, shapes + 1), tokens, atol=1e-3)


class TestGenerator:
    def test_the_square_that_is_drawn_is_the_same_in_pixels_cells_and_sketches(self):
        images = torch.arange(160.0).expand(1, 160, 160)
        assert lips_of_window(images).shape == (1, 96, 96) and lips_of_window(images)[0, 0, 0] == 32
        assert lips_of_sketch(images[:, :40, :40]).shape == (1, 24, 24) and lips_of_sketch(images)[0, 0, 0] == 8
        rim = rim_mask()
        assert rim[0, 48, 48] == 1 and rim[0, 0].max() == 0 and (rim >= 0).all()

    def test_sampling_repeats_with_a_seed_and_changes_with_it(self, generator):
        conditions = random_conditions(generator)
        first = generator.sample(conditions, shared_noise(FRAMES, 16, 1), 2)
        assert first.shape == (1, FRAMES, 16, 12, 12)
        torch.testing.assert_close(generator.sample(conditions, shared_noise(FRAMES, 16, 1), 2), first)
        assert not torch.allclose(generator.sample(conditions, shared_noise(FRAMES, 16, 2), 2), first, atol=1e-3)

    def test_noise_is_the_same_in_all_frames(self):
        noise = shared_noise(5, 16, 3)
        assert (noise == noise[:, :1]).all()
        assert 0.9 < noise.std() < 1.1

    def test_sampling_of_a_perfect_network_gives_the_data(self, generator, monkeypatch):
        truth = torch.randn(1, FRAMES, 16, 12, 12)
        monkeypatch.setattr(generator, "denoise", lambda *inputs: truth)
        for steps in (1, 2, 4):
            torch.testing.assert_close(generator.sample(None, shared_noise(FRAMES, 16, 1), steps), truth)

    def test_guidance_goes_beyond_what_is_drawn_without_speech(self, generator):
        nothing = torch.zeros(1, dtype=torch.bool)
        known = random_conditions(generator)
        unknown = random_conditions(generator, keep_speech=nothing, keep_sketch=nothing)
        noise = shared_noise(FRAMES, 16, 1)
        plain = generator.sample(unknown, noise, 1)
        normal, more = generator.sample(known, noise, 1), generator.sample(known, noise, 1, 2.0, unknown)
        torch.testing.assert_close(more - plain, 2 * (normal - plain), atol=1e-3, rtol=1e-3)
        assert not torch.allclose(normal, plain, atol=1e-3)

    def test_dropped_speech_leaves_no_trace(self, generator):
        nothing = torch.zeros(1, dtype=torch.bool)
        one = random_conditions(generator, keep_speech=nothing, keep_sketch=nothing)
        heard_else = generator.predict_shape(torch.randn(1, 60, 5, 384), None, heard(batch=1)[2]).tokens
        again = generator.conditions(
            one.draft, torch.rand(1, FRAMES, 3, 24, 24), heard_else, one.tokens[:, 0, 2:], nothing, nothing
        )
        torch.testing.assert_close(again.tokens, one.tokens)
        torch.testing.assert_close(again.spatial, one.spatial)

    def test_a_few_steps_lower_the_loss(self, generator):
        generator.train()
        torch.manual_seed(3)
        conditions = random_conditions(generator)
        conditions = Conditions(conditions.spatial.detach(), conditions.tokens.detach())
        clean = conditions.draft + 0.5 * torch.randn(1, 1, 16, 12, 12)
        optimizer = torch.optim.Adam(generator.unet.parameters(), 3e-3)
        losses = []
        for _ in range(30):
            noise, level = torch.randn_like(clean), torch.ones(1)
            loss, estimate = generator.loss(clean, conditions, noise, level, torch.ones(1))
            assert estimate.shape == clean.shape
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert np.mean(losses[-5:]) < 0.7 * losses[0]

    def test_stage_trains_validates_and_exports(self, data, weights, tmp_path):
        extra = ["training.batch_size=1", "training.pixel_from=0.5", "training.sync_weight=0.1"]
        assert train("generator", data, weights, tmp_path, 4, *extra) == 0
        run = tmp_path / "debug" / "generator"
        last = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
        assert last["step"] == 4
        assert np.isfinite([last["psnr_mouth"], last["sync_real"], last["sync_predicted"]]).all()
        assert (run / "validation_0.png").stat().st_size > 1000
        exported = load_pretrained(LatentLipDiffusion, run / "export")
        speech = load_pretrained(SpeechModel, weights / "debug" / "speech")
        for name, value in speech.state_dict().items():
            torch.testing.assert_close(exported.speech.state_dict()[name], value.half().float(), msg=name)

    def test_stage_starts_from_an_earlier_generator_but_keeps_its_own_speech_model(
        self, generator, data, weights, tmp_path
    ):
        generator.save_pretrained(tmp_path / "earlier")
        extra = ["training.learning_rate=1e-12", "training.batch_size=1", "training.pixel_from=1"]
        arguments = ["--init", str(tmp_path / "earlier")]
        assert train("generator", data, weights, tmp_path, 1, *extra, arguments=arguments) == 0
        exported = load_pretrained(LatentLipDiffusion, tmp_path / "debug" / "generator" / "export").state_dict()
        speech = load_pretrained(SpeechModel, weights / "debug" / "speech").state_dict()
        for name, value in generator.state_dict().items():
            own = speech[name.removeprefix("speech.")] if name.startswith("speech.") else value
            torch.testing.assert_close(exported[name], own.half().float(), msg=name)

    def test_stage_without_frozen_weights_says_which(self, data, tmp_path, capsys):
        assert train("generator", data, tmp_path, tmp_path / "runs", 2) == 2
        assert "autoencoder" in capsys.readouterr().err


class TestSaving:
    def test_round_trip(self, generator, tmp_path):
        generator.save_pretrained(tmp_path)
        again = load_pretrained(LatentLipDiffusion, tmp_path)
        conditions, noise = random_conditions(generator), shared_noise(FRAMES, 16, 1)
        torch.testing.assert_close(again.sample(conditions, noise, 1), generator.sample(conditions, noise, 1))

    def test_wrong_size_names_the_tensor(self, generator, tmp_path):
        generator.save_pretrained(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config["face_tokens"] *= 2
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=r"Tensor 'face_encoder\.queries' .* has size"):
            load_pretrained(LatentLipDiffusion, tmp_path)

    def test_missing_weights_are_an_error(self, generator, tmp_path):
        generator.save_config(tmp_path)
        with pytest.raises(InputError, match="No weights"):
            load_pretrained(LatentLipDiffusion, tmp_path)
        with pytest.raises(InputError, match=r"config\.json"):
            load_pretrained(LatentLipDiffusion, tmp_path / "nowhere")


class TestLipSyncModel:
    @pytest.fixture(scope="class")
    def model(self, tiny_weights) -> LipSyncModel:
        model = LipSyncModel.load(tiny_weights, size="debug", device="cpu")
        torch.manual_seed(0)
        torch.nn.init.normal_(model._generator.unet.conv_out.weight, std=0.05)
        return model

    @pytest.fixture(scope="class")
    def scene(self, model) -> dict:
        random = np.random.default_rng(0)
        points = np.repeat(resting_mouth()[None], 8, axis=0).astype(np.float32)
        return {
            "seen": Seen(random.integers(0, 256, (8, 160, 160, 3), dtype=np.uint8), points, 4.0),
            "mouths": [
                mouth_of(picture, points[0], 0 * points[0], np.zeros(10, np.float32), np.zeros(3, np.float32))
                for picture in random.integers(0, 256, (2, 160, 160, 3), dtype=np.uint8)
            ],
            "points": points + [0, 2],
            "opacity": np.ones(8, np.float32),
            "speech": model.hear(random.normal(size=4 * 16000).astype(np.float32) * 0.1),
            "style": Style(steps=2),
        }

    @staticmethod
    def generate(model, scene: dict) -> np.ndarray:
        """The frames (8, 160, 160, 3) of a scene with new mouths."""
        lips = lips_of(scene["points"] - scene["seen"].points)
        picks = MouthPicker().pick(MouthBank(tuple(scene["mouths"])), lips, np.zeros((8, 3), np.float32))
        drafts = model.draft(scene["seen"], scene["points"], picks, scene["opacity"])
        at_rest = model.draft(scene["seen"], scene["seen"].points, picks, scene["opacity"])
        times, faces = 1 + np.arange(8) / 30, model.face_tokens(scene["mouths"])
        latents = model.draw(drafts, faces, scene["speech"], times, scene["style"], at_rest)
        return model.render(drafts, latents)

    def test_a_real_mouth_stays_as_it_is_and_the_generator_draws_lips_only(self, model, scene):
        drawn, real = self.generate(model, scene), self.generate(model, scene | {"opacity": np.zeros(8, np.float32)})
        assert drawn.shape == (8, 160, 160, 3) and drawn.dtype == np.uint8
        lips = np.stack([lips_mask(points) for points in scene["points"]]) > 0
        np.testing.assert_array_equal(drawn[~lips], real[~lips])
        assert (drawn[lips] != real[lips]).mean() > 0.3
        half = scene | {"opacity": np.repeat(np.float32([0, 1]), 4)}
        mixed = self.generate(model, half)
        np.testing.assert_array_equal(mixed[:4], real[:4])
        assert (mixed[4:] != real[4:]).any()

    def test_seed_shape_and_guidance_matter(self, model, scene):
        base = self.generate(model, scene)
        np.testing.assert_array_equal(self.generate(model, scene), base)
        changes = [{"style": Style(2, seed=2)}, {"points": scene["points"] + [0, 4]}, {"style": Style(2, 2.0)}]
        for change in [*changes, {"style": Style(1)}]:
            assert (self.generate(model, scene | change) != base).any(), change

    def test_shape_does_not_depend_on_the_block(self, model, scene):
        times = np.arange(80) / 25
        whole = model.predict_shape(scene["speech"], times)
        assert whole.shape == (80, 10)
        np.testing.assert_allclose(model.predict_shape(scene["speech"], times, block=7), whole, atol=1e-4)

    def test_frames_beyond_the_sound_are_allowed(self, model, scene):
        assert np.isfinite(model.predict_shape(scene["speech"], np.array([3.9, 4.5, 20.0]))).all()

    def test_missing_part_is_named(self, tmp_path):
        with pytest.raises(InputError, match="whisper_tiny_en_encoder"):
            LipSyncModel.load(tmp_path)
