"""Processed clips as windows: which clips, which frames, which speech."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from data.dataset import REFERENCE_GAP, ClipCache, ClipDataset, StepBatches, clip_probabilities, load_clips
from faces.mouth_shape import MouthShape
from tests.processed import make_processed
from utils.config import Config, load_config
from utils.helpers import InputError

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_processed(tmp_path_factory.mktemp("processed"), people=2, clips=3, frames=60)


@pytest.fixture
def config(root: Path) -> Config:
    return load_config(REPO / "model_config.yaml", [f"data.processed_dir={root}", "data.references=3"])


@pytest.fixture
def dataset(config: Config) -> ClipDataset:
    return ClipDataset(config.data, "val", MouthShape.load(REPO / "pretrained" / "mouth_shape"))


def change_clip(folder: Path, valid: np.ndarray | None = None, offset: int | None = None) -> None:
    """Rewrite what tracks.npz and meta.json say of a clip."""
    if valid is not None:
        with np.load(folder / "tracks.npz") as file:
            tracks = dict(file)
        np.savez(folder / "tracks.npz", **tracks | {"valid": valid})
    if offset is not None:
        meta = json.loads((folder / "meta.json").read_text())
        (folder / "meta.json").write_text(json.dumps(meta | {"sync_offset": offset}))


def test_windows_hold_valid_frames_only(tmp_path: Path) -> None:
    root = make_processed(tmp_path, people=1, clips=2, frames=40)
    valid = np.ones(40, bool)
    valid[20] = False
    change_clip(root / "train" / "train_0_0", valid=valid)
    change_clip(root / "train" / "train_0_1", valid=np.arange(40) < 15)
    (clip,) = load_clips(root, "train", window=16, fps=25)
    assert clip.name == "train_0_0"
    assert clip.starts.tolist() == [0, 1, 2, 3, 4, 21, 22, 23, 24]


def test_one_person_is_capped(root: Path) -> None:
    clips = load_clips(root, "train", 16, 25, max_minutes=130 / 25 / 60)
    assert len(clips) == 4
    assert {clip.person for clip in clips} == {"train0", "train1"}


def test_people_weigh_by_the_root_of_their_minutes(root: Path) -> None:
    clips = load_clips(root, "train", 16, 25)
    some = [clip for clip in clips if clip.person == "train0"][:1] + [c for c in clips if c.person == "train1"]
    chances = clip_probabilities(some)
    assert chances.sum() == pytest.approx(1)
    assert chances[1:].sum() / chances[0] == pytest.approx(np.sqrt(3))


def test_no_usable_clip_is_named(tmp_path: Path) -> None:
    root = make_processed(tmp_path, people=1, clips=1, frames=10)
    with pytest.raises(InputError, match="16 valid frames"):
        load_clips(root, "train", 16, 25)


def test_a_sample_has_sizes_and_ranges(dataset: ClipDataset) -> None:
    batch = StepBatches(dataset.draw, batch_size=2, seed=1)[0]
    assert batch["frames"].shape == (2, 16, 3, 160, 160)
    assert batch["references"].shape == (2, 3, 160, 160, 3)
    assert batch["shape"].shape == (2, 16, 10) and batch["reference_shapes"].shape == (2, 3, 10)
    assert batch["base"].shape[:2] == (2, 16) and batch["reference_points"].shape[:2] == (2, 3)
    assert batch["skin"].shape == (2, 16, 160, 160, 3)
    assert batch["frames"].min() >= -1 and 0.1 < batch["frames"].max() <= 1
    assert len(batch["person"]) == 2


@pytest.mark.parametrize("offset", [0, 3, -4])
def test_speech_follows_time_and_offset(offset: int, tmp_path: Path) -> None:
    """The made features hold the mouth's curve, so the feature at a frame's time tells which frame it belongs to."""
    root = make_processed(tmp_path, people=1, clips=1, frames=60)
    change_clip(root / "val" / "val_0_0", offset=offset)
    config = load_config(REPO / "model_config.yaml", [f"data.processed_dir={root}"])
    dataset = ClipDataset(config.data, "val", MouthShape.load(REPO / "pretrained" / "mouth_shape"), context_s=0.2)
    clip = dataset.clips[0]
    curve = np.load(clip.directory / "tracks.npz")["shape"][:, 0]
    for start in (8, 20, 36):
        sample = dataset.window(clip, start, np.random.default_rng(0))
        steps = ((sample["times"] + 0.001) * 50).long()
        heard = sample["speech"][steps, :, :48].mean((1, 2)).numpy()
        assert np.allclose(heard, curve[start + offset : start + offset + 16], atol=0.1)


def test_short_clips_get_padded_speech(tmp_path: Path) -> None:
    root = make_processed(tmp_path, people=1, clips=1, frames=20)
    config = load_config(REPO / "model_config.yaml", [f"data.processed_dir={root}"])
    dataset = ClipDataset(config.data, "val", MouthShape.load(REPO / "pretrained" / "mouth_shape"), context_s=1.0)
    sample = dataset.window(dataset.clips[0], 2, np.random.default_rng(0))
    assert sample["speech"].shape == (132, 5, 384)
    assert sample["speech_steps"] == 40
    assert sample["speech"][40:].abs().max() == 0
    assert sample["times"][0].item() == pytest.approx(2 / 25)


def test_references_are_not_neighbours(dataset: ClipDataset) -> None:
    """Every clip of the data shows each moment but once, so a reference's shape tells where it comes from."""
    clip = dataset.clips[0]
    own = np.load(clip.directory / "tracks.npz")["shape"][:, 0]
    random = np.random.default_rng(0)
    for _ in range(10):
        for value in dataset.window(clip, 20, random)["reference_shapes"][:, 0].numpy():
            from_here = np.flatnonzero(np.abs(own - value) < 1e-6)
            assert all(frame <= 20 - REFERENCE_GAP or frame >= 35 + REFERENCE_GAP for frame in from_here)


def test_a_step_is_always_the_same_batch(dataset: ClipDataset) -> None:
    one, again = (StepBatches(dataset.draw, 2, seed=5)[7] for _ in range(2))
    assert torch.equal(one["frames"], again["frames"]) and torch.equal(one["speech"], again["speech"])
    others = [StepBatches(dataset.draw, 2, seed=5)[8], StepBatches(dataset.draw, 2, seed=5, rank=1)[7]]
    assert not any(torch.equal(one["frames"], other["frames"]) for other in others)


def test_the_cache_stays_within_its_limit(root: Path) -> None:
    loads = []

    def load(clip: object) -> np.ndarray:
        loads.append(clip.name)
        return np.zeros(100, np.uint8)

    clips = load_clips(root, "train", 16, 25)
    cache = ClipCache(load, limit_bytes=250)
    for clip in (clips[0], clips[1], clips[0], clips[2], clips[0], clips[1]):
        cache(clip)
    assert loads == [clips[0].name, clips[1].name, clips[2].name, clips[1].name]
