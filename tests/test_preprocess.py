"""Preprocessing: raw videos in, clip folders out; nothing lost, nothing done twice, originals untouched."""

import hashlib
import json
import shutil

import av
import numpy as np
import pytest
import soundfile

from data.preprocess import check_sync, main
from models.syncnet import SyncNetV2
from tests import footage
from tests.conftest import REPO
from utils.config import load_config


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """The repository's configuration with absolute weight folders and two speech variants, for runs from anywhere."""
    text = (REPO / "model_config.yaml").read_text()
    text = text.replace("models_dir: pretrained/", f"models_dir: {REPO}/pretrained/")
    text = text.replace("mouth_shape_dir: pretrained/", f"mouth_shape_dir: {REPO}/pretrained/")
    text = text.replace("weights_dir: pretrained ", f"weights_dir: {REPO}/pretrained ")
    text = text.replace("scene_minutes: 12.0", "scene_minutes: 0.2")
    path = tmp_path_factory.mktemp("config") / "model_config.yaml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """In train a talking head, one at 29.97 fps with own sound and text, a faceless one and a text file."""
    root = tmp_path_factory.mktemp("raw")
    for split in ("train", "val", "test"):
        (root / split / "videos").mkdir(parents=True)
    videos = root / "train" / "videos"
    footage.make_video(videos / "anna 1.mp4", seconds=1.6)
    footage.make_video(videos / "ben.mp4", seconds=2.0, fps=footage.Fraction(30000, 1001), sound=False)
    (root / "train" / "audios").mkdir()
    footage.make_sound(root / "train" / "audios" / "ben.wav", 2.0)
    (root / "train" / "texts").mkdir()
    (root / "train" / "texts" / "ben.txt").write_text("Guten Tag, ß\n", encoding="utf-8")
    footage.make_video(videos / "empty.mp4", seconds=1.5, faceless=(0.0, 9.0))
    footage.bad_file("text", videos)
    footage.make_video(root / "val" / "videos" / "carl.mp4", seconds=2.4, faceless=(1.0, 1.4))
    footage.make_video(root / "test" / "videos" / "dora.mp4", seconds=1.2)
    return root


def checksums(root):
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def processed(raw, config_file, tmp_path_factory):
    output = tmp_path_factory.mktemp("processed")
    before = checksums(raw)
    assert run(raw, output, config_file) == 0
    assert checksums(raw) == before, "an original was touched"
    return output


def run(raw, output, config_file, split="all"):
    return main(
        ["--raw_data_dir", str(raw), "--output_dir", str(output), "--config", str(config_file), "--split", split]
        + ["--num_workers", "1"]
    )


def test_report_counts_what_was_kept_and_why_the_rest_was_dropped(processed):
    report = json.loads((processed / "report.json").read_text())
    assert report["train"]["videos_in"] == 4
    assert report["train"]["clips_kept"] == 2
    assert report["train"]["videos_dropped"] == {"no usable face": 1, "unreadable": 1}
    assert report["val"]["clips_kept"] == 2, "frames without a face split a video into two clips"
    assert report["train"]["people"] == 2


@pytest.mark.parametrize(("clip", "seconds"), [("anna 1", 1.6), ("ben", 2.0)])
def test_clip_folder_is_complete_and_consistent(processed, clip, seconds):
    folder = processed / "train" / clip
    meta = json.loads((folder / "meta.json").read_text())
    assert abs(meta["frames"] - seconds * 25) <= 1
    with av.open(str(folder / "crops.mp4")) as container:
        crops = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 25
    assert len(crops) == meta["frames"] and crops[0].shape == (160, 160, 3)
    samples, rate = soundfile.read(folder / "audio.wav")
    assert rate == 16000 and abs(len(samples) / rate - meta["frames"] / 25) < 0.01
    tracks = np.load(folder / "tracks.npz")
    assert tracks["points"].shape == (meta["frames"], 468, 2)
    assert tracks["shape"].shape == (meta["frames"], 10)
    assert tracks["base"].shape[:2] == (meta["frames"], 57) and np.isfinite(tracks["shape"]).all()
    assert tracks["valid"].all()
    speech = np.load(folder / "speech.npy")
    assert speech.shape[0] == 3 and speech.shape[2:] == (5, 384)
    assert abs(speech.shape[1] - 2 * meta["frames"]) <= 1
    assert np.abs(speech[0] - speech[1]).mean() > 0.01, "the altered copy is not altered"
    activity = np.load(folder / "activity.npy")
    assert len(activity) == speech.shape[1] and activity.min() >= 0 and activity.max() <= 1


def test_scenes_hold_pauses_with_the_mouth_at_rest(processed):
    scenes = sorted((processed / "train_scenes").glob("scene_*"))
    assert scenes and (processed / "val_scenes").is_dir() and not (processed / "test_scenes").exists()
    for scene in scenes:
        tracks = np.load(scene / "tracks.npz")
        shape, spoken = tracks["shape"], tracks["spoken"]
        samples, rate = soundfile.read(scene / "audio.wav")
        assert rate == 16000 and len(samples) == len(shape) * 640
        assert np.load(scene / "speech.npy").shape == (1, 2 * len(shape), 5, 384)
        assert len(np.load(scene / "activity.npy")) == 2 * len(shape)
        assert not spoken[:5].any() and not spoken[-5:].any()
        jumps = np.abs(np.diff(shape, axis=0)).max(axis=1)[~(spoken[1:] & spoken[:-1])]
        assert jumps.max() < 0.6 * np.ptp(shape, axis=0).max() + 1e-6, "the mouth jumps between speech and rest"
        still = np.convolve(spoken, np.ones(11), "same") == 0
        assert np.ptp(shape[still], axis=0).max() < 1e-5, "the mouth moves in a pause"


def test_window_is_aligned_on_the_face(processed):
    points = np.load(processed / "train" / "anna 1" / "tracks.npz")["points"].astype(float)
    lips = points[:, [61, 291, 0, 17]].mean(1)
    assert np.abs(lips - [80, 66]).max() < 12
    assert np.diff(lips, axis=0).std() < 1.0, "the window trembles"


def test_texts_and_names_are_kept(processed):
    meta = json.loads((processed / "train" / "ben" / "meta.json").read_text())
    assert meta["text"] == "Guten Tag, ß" and meta["clip_id"] == "ben"


def test_second_run_skips_and_repairs(processed, raw, config_file):
    kept = processed / "train" / "anna 1" / "crops.mp4"
    lost = processed / "train" / "ben"
    before = kept.stat().st_mtime_ns
    (lost / "speech.npy").unlink()
    shutil.copytree(lost, lost.with_name(".left.part"))
    assert run(raw, processed, config_file, "train") == 0
    assert kept.stat().st_mtime_ns == before
    assert (lost / "speech.npy").is_file()
    assert json.loads((processed / "report.json").read_text())["train"]["clips_kept"] == 2


def test_mouth_shapes_are_learnt_where_there_are_none(raw, config_file, tmp_path):
    few = tmp_path / "raw" / "train" / "videos"
    few.mkdir(parents=True)
    shutil.copy(raw / "train" / "videos" / "anna 1.mp4", few)
    text = config_file.read_text().replace(
        f"mouth_shape_dir: {REPO}/pretrained/mouth_shape", f"mouth_shape_dir: {tmp_path}/m"
    )
    own = tmp_path / "config.yaml"
    own.write_text(text)
    assert run(tmp_path / "raw", tmp_path / "out", own, "train") == 0
    assert (tmp_path / "m" / "model.safetensors").is_file()


def test_sync_check_notes_an_offset_within_the_limits(processed, config_file, tmp_path):
    config = load_config(config_file, ["size=debug", "preprocess.min_sync_confidence=0"])
    SyncNetV2(**config.model.syncnet.model_dump()).save_pretrained(tmp_path / "syncnet")
    clip = tmp_path / "clip"
    shutil.copytree(processed / "train" / "ben", clip)
    check_sync(clip, tmp_path / "syncnet", config.preprocess)
    offset = json.loads((clip / "meta.json").read_text())["sync_offset"]
    assert isinstance(offset, int) and abs(offset) <= config.preprocess.max_sync_offset
    unsure = load_config(config_file, ["preprocess.min_sync_confidence=9"]).preprocess
    shutil.copy(processed / "train" / "ben" / "meta.json", clip / "meta.json")
    check_sync(clip, tmp_path / "syncnet", unsure)
    assert json.loads((clip / "meta.json").read_text())["sync_offset"] == 0


def test_missing_folder_is_one_sentence_and_code_2(tmp_path, config_file, capsys):
    assert run(tmp_path, tmp_path / "out", config_file) == 2
    message = capsys.readouterr().err.strip()
    assert "does not exist" in message and "\n" not in message
