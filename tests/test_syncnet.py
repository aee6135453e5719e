"""The sync networks: windows, offsets, contrast, and that one learns to tell true from shifted sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.syncnet import SyncNetV2, offset_search, shift_distances, to_grey
from tests.processed import make_processed
from trainer import main
from training.syncnet import best_accuracy, contrast, far_partner


def small_net(audio_input: str = "speech") -> SyncNetV2:
    torch.manual_seed(0)
    return SyncNetV2(audio_input, visual_widths=(8, 8, 12, 16), audio_width=16, embedding=24).eval()


def embeddings(length: int) -> torch.Tensor:
    """Unit embeddings that change smoothly over time, as those of speech do."""
    noise = torch.randn(length + 4, 32, generator=torch.Generator().manual_seed(1))
    return F.normalize(noise.unfold(0, 5, 1).mean(-1), dim=-1)


@pytest.mark.parametrize("shift", [-6, -1, 0, 3, 7])
def test_offset_is_found_with_its_sign(shift: int) -> None:
    """Frame i of the picture shows what is heard at frame i + shift."""
    sound = embeddings(80)
    first = max(0, shift)
    picture = sound[first:] if shift > 0 else torch.cat([embeddings(140)[100 : 100 - shift], sound])
    result = offset_search(picture, sound, max_shift=8)
    assert result.offset == shift
    assert result.distance < 0.05
    assert result.confidence > 0.5


def test_confidence_is_low_for_a_foreign_sound() -> None:
    sound, foreign = embeddings(80), torch.roll(embeddings(80), 40, 0)
    assert offset_search(sound, foreign, 8).confidence < 0.3 * offset_search(sound, sound, 8).confidence


def test_short_clips_leave_far_shifts_out() -> None:
    shifts = shift_distances(embeddings(6), embeddings(6), max_shift=15)
    assert set(shifts) == set(range(-4, 5))
    assert offset_search(embeddings(1), embeddings(1)).offset == 0


def test_one_window_and_a_whole_clip_agree() -> None:
    net = small_net()
    frames = torch.rand(20, 3, 160, 160) * 2 - 1
    speech = torch.randn(45, 5, 384)
    with torch.no_grad():
        pictures, sounds = net.embed_video(frames), net.embed_audio(speech)
        assert pictures.shape == (5, 24) and sounds.shape == (7, 24)
        assert torch.allclose(pictures[3:4], net.visual(frames[None, 3:19]), atol=1e-4)
        assert torch.allclose(sounds[3:4], net.audio(speech[None, 6:38]), atol=1e-4)
        assert torch.allclose(pictures.norm(dim=1), torch.ones(5), atol=1e-4)


def test_mel_windows_are_four_steps_a_frame() -> None:
    net = small_net("mel")
    mel = torch.randn(80, 100)
    with torch.no_grad():
        sounds = net.embed_audio(mel)
        assert sounds.shape == (10, 24)
        assert torch.allclose(sounds[2:3], net.audio(mel[None, :, 8:72]), atol=1e-4)


def test_brightness_and_contrast_do_not_matter() -> None:
    net = small_net()
    frames = torch.rand(1, 16, 3, 160, 160) - 0.5
    with torch.no_grad():
        same = F.cosine_similarity(net.visual(frames), net.visual(0.5 * frames + 0.3))
    assert same.item() > 0.99


def test_gradients_reach_the_pixels() -> None:
    frames = (torch.rand(1, 16, 3, 160, 160) * 2 - 1).requires_grad_()
    small_net().visual(frames)[0, 0].backward()
    assert frames.grad[..., 40:150, 20:140].abs().sum() > 0
    assert frames.grad[..., :20, :].abs().sum() == 0
    assert to_grey(torch.ones(1, 3, 160, 160)).sub(1).abs().max() < 1e-3


def test_near_windows_of_a_clip_are_no_negatives() -> None:
    """Two clips of two windows; those of the first are one frame apart, so only the true partner counts there."""
    starts = torch.tensor([[10, 11], [10, 30]])
    logits = torch.zeros(4, 4)
    over_all, within = contrast(logits, starts, minimum_shift=2)
    assert within.item() == pytest.approx(0.5 * np.log(2), abs=1e-4)
    assert over_all.item() == pytest.approx(0.5 * (np.log(3) + np.log(4)), abs=1e-4)
    assert contrast(20 * torch.eye(4), starts, 2)[0] < 1e-3


def test_accuracy_of_separable_scores() -> None:
    accuracy, threshold = best_accuracy(np.array([0.8, 0.9, 0.7]), np.array([0.1, 0.2, 0.75]))
    assert accuracy == pytest.approx(5 / 6)
    assert 0.2 <= threshold < 0.8


def test_partners_are_far_or_none() -> None:
    random = np.random.default_rng(0)
    assert {far_partner(3, 9, random) for _ in range(20)} == {8}
    assert far_partner(2, 5, random) is None


SHORT = ["--size", "debug", "--set", "training.common.num_workers=0", "--set", "training.batch_size=6"]


@pytest.mark.parametrize("stage", ["syncnet", "syncnet_shapes"])
def test_learns_to_tell_true_from_shifted(tmp_path: Path, stage: str) -> None:
    data = make_processed(tmp_path / "data", people=4, clips=2, frames=60)
    settings = {
        "data.processed_dir": data, "training.max_steps": 60, "training.validate_every": 60, "training.shifts": 6,
        "training.near_shifts": 2, "training.learning_rate": 4e-3, "training.warmup_steps": 10,
        "training.ema_decay": 0.9,
    }  # fmt: skip
    pairs = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    assert main(["--stage", stage, "--output", str(tmp_path), "--device", "cpu", *SHORT, *pairs]) == 0
    run = tmp_path / "debug" / stage
    metrics = json.loads((run / "history.jsonl").read_text().splitlines()[-1])
    assert metrics["pairs"] > 0.8
    assert metrics["accuracy"] > 0.7
    loaded = SyncNetV2.from_pretrained(run / "export", torch_dtype=torch.float32)
    assert loaded.config.audio_input == "speech"
    assert loaded.config.visual_input == ("shapes" if stage == "syncnet_shapes" else "pixels")


def test_windows_of_shapes_are_those_of_their_frames() -> None:
    torch.manual_seed(0)
    net = SyncNetV2("speech", (8, 12, 16), 12, 24, 0.0, "shapes", 10).eval()
    shapes = torch.randn(3, 20, 10)
    with torch.no_grad():
        whole = net.embed_shapes(shapes)
        assert whole.shape == (3, 5, 24)
        assert torch.allclose(whole[:, 2:3], net.embed_shapes(shapes[:, 2:18]), atol=1e-5)
    assert torch.allclose(whole.norm(dim=-1), torch.ones(3, 5), atol=1e-4)


def test_missing_speech_features_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = make_processed(tmp_path / "data", people=1, clips=1)
    for file in data.glob("*/*/speech.npy"):
        file.unlink()
    place = ["--set", f"data.processed_dir={data}", "--output", str(tmp_path), "--device", "cpu"]
    assert main(["--stage", "syncnet_judge", *SHORT, *place]) == 2
    assert "speech.npy" in capsys.readouterr().err
