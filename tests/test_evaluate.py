"""Scoring from outside: what is made, what is written, and that every metric ranks versions of a clip as it should."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from audio_processor import load_audio
from data.preprocess import face_tracker
from data.raw_clips import RawClip
from evaluation.clips import find_clips, in_step, pair_with_speech
from evaluation.features import PACKAGES, check_packages
from faces.compositor import composite, soft_mask
from faces.mouth_windows import mouth_windows
from faces.usable import UsableFace
from models.syncnet import SyncNetV2
from tests.footage import make_sound, make_video
from tests.public_weights import write_public_weights
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import VideoReader, VideoWriter

for package in (*PACKAGES, "matplotlib"):
    if package != "face_recognition_models":  # cannot be imported beside current setuptools; its files are used
        pytest.importorskip(package)
from evaluate import main  # noqa: E402
from evaluation.run import ADAPTED, NEW, OURS, Job, Scored  # noqa: E402
from evaluation.scores import Compared  # noqa: E402
from evaluation.totals import as_text, summarise  # noqa: E402

REPO = Path(__file__).resolve().parent.parent
REAL_CLIPS = ("lrcar_p019_0000", "lrcar_p021_0000", "lrcar_p029_0000")  # people never seen in training, a second each


def raw_clip(name: str, person: str, seconds: float, folder: Path) -> RawClip:
    sound = make_sound(folder / f"{name}.wav", seconds, sample_rate=8000)
    return RawClip(folder / f"{name}.mp4", sound, "test", person, "", "", "")


def test_clips_are_taken_in_turn_over_the_people(tmp_path: Path) -> None:
    videos = tmp_path / "test" / "videos"
    videos.mkdir(parents=True)
    people = {"a0": "a", "a1": "a", "a2": "a", "b0": "b", "c0": "c", "c1": "c"}
    rows = ["file\tperson\tlanguage\ttext\tsource"]
    for name, person in people.items():
        (videos / f"{name}.mp4").touch()
        rows.append(f"test/videos/{name}.mp4\t{person}\ten\t\t")
    (tmp_path / "manifest.tsv").write_text("\n".join(rows))
    assert [clip.video.stem for clip in find_clips(videos, 4)] == ["a0", "b0", "c0", "a1"]
    with pytest.raises(InputError, match="no video"):
        find_clips(tmp_path)


@pytest.mark.parametrize("offset", [3, -2, 0])
def test_sounds_are_put_in_step_with_the_picture(offset: int, tmp_path: Path) -> None:
    clip = raw_clip("a", "a", 1.0, tmp_path)
    (tmp_path / "split" / "a").mkdir(parents=True)
    (tmp_path / "split" / "a" / "meta.json").write_text(json.dumps({"sync_offset": offset}))
    (moved,) = in_step([clip], tmp_path / "split", tmp_path / "out")
    before, after = load_audio(clip.audio, 16000), load_audio(moved.audio, 16000)
    # What belongs to frame i is, before, at frame i + offset.
    skipped, added = max(0, offset) * 640, max(0, -offset) * 640
    np.testing.assert_allclose(after[added:], before[skipped:], atol=1e-3)
    assert (after[:added] == 0).all()


def test_sounds_that_were_not_measured_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--sync_network"):
        in_step([raw_clip("a", "a", 1.0, tmp_path)], tmp_path, tmp_path / "out")


def test_new_speech_is_another_person_s_of_like_length_and_used_once(tmp_path: Path) -> None:
    lengths = [("a", 1.0), ("a", 1.1), ("a", 3.0), ("b", 1.0), ("b", 1.2), ("c", 3.1), ("c", 1.0)]
    clips = [raw_clip(f"{p}{i}", p, s, tmp_path) for i, (p, s) in enumerate(lengths)]
    pairs = pair_with_speech(clips, seed=3)
    assert pairs == pair_with_speech(clips, seed=3)
    assert set(pairs) == {clip.video.name for clip in clips}
    assert all(name[0] != speech.name[0] for name, speech in pairs.items())
    assert max(Counter(speech.name for speech in pairs.values()).values()) == 1
    assert pairs["a2.mp4"].name == "c5" and pairs["c5.mp4"].name == "a2"  # the long ones
    with pytest.raises(InputError, match="two or more"):
        pair_with_speech(clips[:2])


def test_missing_packages_are_named() -> None:
    with pytest.raises(InputError, match=r"no_such_package_1.*requirements-eval.txt"):
        check_packages(("numpy", "no_such_package_1"))


@pytest.mark.parametrize(
    "arguments, said",
    [
        ([], "Give either"),
        (["--results", "x"], "Give either"),
        (["--results", "x", "--ground_truth", "x", "--cross", "x"], "Give either"),
        (["--self_reenactment", "no_such_folder"], "no_such_folder"),
        (["--cross", "tests", "--clips", "0"], "1 or more"),
        (["--cross", "tests", "--adapt", "soon"], "soon"),
        (["--mouth", "tests", "--engines", "lite,wav2lip"], "--engines makes results"),
        (["--cross", "tests", "--engines", "wav9lip"], "There is no engine 'wav9lip'"),
    ],
)
def test_bad_requests_get_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


def scored_clip(name: str, confidence: dict[str, float]) -> Scored:
    """A clip on new speech whose versions differ in their sync confidence only."""
    random = np.random.default_rng(0)
    same = {"distance": 1.0, "offset": 1.0, "in_sync": 1.0, "jerk": 100.0, "warp_error": 2.0, "identity": 0.9}
    rows = {version: same | {"confidence": value, "lost_frames": 0} for version, value in confidence.items()}
    features = {version: random.normal(size=(8, 320)) for version in confidence}
    job = Job(RawClip(Path(f"{name}.mp4"), Path(f"{name}.mp4"), "", name, "", "", ""), (NEW,))
    adaptation = {NEW: {"skipped": False, "said": "Adapted."}} if ADAPTED in confidence else {}
    return Scored(job, {NEW: Compared(30, rows, features)}, identity=random.normal(size=128), adaptation=adaptation)


def test_adaptation_stands_beside_the_same_clips_without_it() -> None:
    basis = {"real": 0.5, "untouched": 0.1, "frozen mouth": 0.0}
    clips = [scored_clip("a", basis | {OURS: 0.2, ADAPTED: 0.4}), scored_clip("b", basis | {OURS: 0.4})]
    summary = summarise(clips)
    table = summary.modes[NEW]
    assert list(table) == [*basis, "ours", "ours, 1 longest clips", "ours, adapted, same clips"]
    assert [row["confidence"] for row in table.values()][3:] == pytest.approx([0.3, 0.2, 0.4])
    assert table["ours"]["confidence_of_real"] == pytest.approx(0.6)
    text = as_text(summary)
    assert "sync confidence 80 % of the real video's" in text and "changed something in 1 clips" in text


def test_nothing_to_score_is_said() -> None:
    job = Job(RawClip(Path("a.mp4"), Path("a.mp4"), "", "a", "", "", ""), (NEW,))
    with pytest.raises(InputError, match="it rained"):
        summarise([Scored(job, left_out="it rained")])


@pytest.fixture(scope="module")
def own_run(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> tuple[Path, list[str]]:
    """Two made clips, scored with the program's random `debug` weights and a random judge; and the arguments."""
    root = tmp_path_factory.mktemp("own")
    clips = root / "clips"
    clips.mkdir()
    make_video(clips / "one.mp4", 1.2, size=(200, 200))
    make_video(clips / "two.mp4", 1.4, size=(200, 200))
    make_video(clips / "zero.mp4", 1.2, size=(200, 200), faceless=(0.0, 2.0))
    torch.manual_seed(0)
    SyncNetV2(visual_widths=(8, 8, 12, 16), audio_width=16, embedding=24).save_pretrained(root / "judge")
    config = tiny_config(root, tiny_weights)
    arguments = ["--self_reenactment", str(clips), "--cross", str(clips), "--config", str(config)]
    arguments += ["--judge", str(root / "judge"), "--output", str(root / "made"), "--json", str(root / "scores.json")]
    assert main([*arguments, "--report", str(root / "report.html")]) == 0
    return root, arguments


def test_every_row_stands_beside_the_method(own_run: tuple[Path, list[str]]) -> None:
    scores = json.loads((own_run[0] / "scores.json").read_text())
    own, new = scores["total"]["modes"]["own speech"], scores["total"]["modes"]["new speech"]
    assert list(own) == ["real", "real, encoded again", "frozen mouth", "ours"]
    assert list(new) == ["real", "untouched", "frozen mouth", "ours"]
    assert {"lmd", "ssim", "psnr", "perceptual", "frechet", "identity", "confidence"} <= set(own["ours"])
    assert {"distance", "in_sync", "jerk_of_real", "warp_error", "lmd_of_frozen"} <= set(own["ours"])
    assert own["real"]["jerk_of_real"] == own["real"]["identity_of_real"] == 1.0
    assert not {"lmd", "ssim", "psnr"} & set(new["ours"])  # another text: there is no right mouth to compare with
    assert new["untouched"]["frechet"] == pytest.approx(0.0, abs=1e-3)


def test_clips_that_cannot_be_used_are_named(own_run: tuple[Path, list[str]]) -> None:
    scores = json.loads((own_run[0] / "scores.json").read_text())
    assert scores["total"]["clips"] == 2
    left = {clip["clip"]: clip["left_out"] for clip in scores["clips"]}
    assert left["one.mp4"] is None and "no usable face" in left["zero.mp4"]
    words = {clip["clip"]: clip["speech"] for clip in scores["clips"]}
    assert all(words[name] != name.split(".")[0] for name in words)


def test_the_report_needs_nothing_else(own_run: tuple[Path, list[str]]) -> None:
    page = (own_run[0] / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=['"](?!data:|#)""", page) and "<script" not in page
    assert page.count("data:image/jpeg;base64,") >= 8 and page.count("<svg") >= 10
    assert "EfficientNet-Lite0" in page and "FID" in page  # what it is, and what it is not
    assert "zero.mp4" in page


def test_the_same_command_goes_on_where_it_was(
    own_run: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, arguments = own_run
    made = {path: path.stat().st_mtime_ns for path in (root / "made").rglob("*.mp4")}
    assert len(made) == 8
    before = json.loads((root / "scores.json").read_text())
    lost = next(path for path in made if "own_speech" in str(path))
    lost.unlink()
    own = arguments.index("--cross")
    assert main([*arguments[:own], *arguments[own + 2 :]]) == 0
    after = {path: path.stat().st_mtime_ns for path in (root / "made").rglob("*.mp4")}
    assert after.keys() == made.keys()
    assert {path for path in made if after[path] != made[path]} == {lost}
    again = json.loads((root / "scores.json").read_text())["total"]["modes"]
    assert list(again) == ["own speech"]
    for version in ("real", "real, encoded again", "frozen mouth"):
        assert again["own speech"][version] == pytest.approx(before["total"]["modes"]["own speech"][version], rel=1e-3)
    assert "| ours" in capsys.readouterr().out


def test_engines_stand_in_one_table(
    own_run: tuple[Path, list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row for each engine beside the same real videos; an engine that is not there is told before any work."""
    root, arguments = own_run
    shutil.copytree(root / "made", tmp_path / "made")
    start = [*arguments[:2], *arguments[4:8], f"--output={tmp_path / 'made'}", f"--json={tmp_path / 'scores.json'}"]
    weights = f"--engine_weights={write_public_weights(tmp_path / 'engines')}"
    assert main([*start, "--engines", "lite, wav2lip,wav2lip-256", weights, "--clips", "1"]) == 0
    table = json.loads((tmp_path / "scores.json").read_text())["total"]["modes"]["own speech"]
    assert list(table) == ["real", "real, encoded again", "frozen mouth", "ours", "wav2lip", "wav2lip-256"]
    # Random weights: worse than the video that was only encoded again, and unlike each other.
    assert table["wav2lip"]["lmd"] > table["real, encoded again"]["lmd"]
    assert len({round(table[name]["perceptual"], 6) for name in ("ours", "wav2lip", "wav2lip-256")}) == 3
    printed = capsys.readouterr().out
    assert all(f"| {name} " in printed for name in ("ours", "wav2lip", "wav2lip-256"))
    assert main([*start, "--engines", "lite,musetalk-1.5", f"--engine_weights={tmp_path}"]) == 2
    assert "musetalk-1.5 is not installed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def ranked(talking_faces: Path, lite_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Totals of real clips against "results" whose mouths are the clip's own in disorder, with a foreign sound."""
    root = tmp_path_factory.mktemp("ranked")
    truth, results = root / "truth", root / "results"
    truth.mkdir()
    config = load_config(REPO / "model_config.yaml")
    for name in REAL_CLIPS:
        (truth / f"{name}.mp4").symlink_to(talking_faces / "test" / "videos" / f"{name}.mp4")
    for name, other in zip(REAL_CLIPS, (*REAL_CLIPS[1:], REAL_CLIPS[0]), strict=True):
        write_disordered(truth / f"{name}.mp4", truth / f"{other}.mp4", results / f"{name}.mp4", config)
    scores = root / "scores.json"
    judge = ["--judge", str(lite_weights / "syncnet_judge"), "--output", str(root / "made")]
    assert main(["--results", str(results), "--ground_truth", str(truth), "--json", str(scores), *judge]) == 0
    return json.loads(scores.read_text())["total"]


def write_disordered(video: Path, sound: Path, output: Path, config: object) -> None:
    usable = UsableFace(config.faces.min_face_px, config.faces.max_yaw_deg, config.faces.max_pitch_deg)
    with VideoReader(video) as reader:
        frames = list(mouth_windows(face_tracker(config).follow(reader), usable))
        order = np.random.default_rng(0).permutation(len(frames))
        with VideoWriter(output, reader.info, audio_from=sound) as writer:
            for frame, other in zip(frames, order, strict=True):
                mouth = frames[other].window
                alpha = soft_mask(frame.points)
                writer.write(frame.frame, composite(frame.size, mouth, frame.window, frame.matrix, alpha))


def test_metrics_rank_real_frozen_and_disordered_mouths(ranked: dict) -> None:
    """A metric that does not is broken."""
    rows = ranked["modes"]["given results"]
    real, again, untouched, frozen, disorder = (
        rows[name] for name in ("real", "real, encoded again", "untouched", "frozen mouth", "results")
    )
    for wrong in (frozen, disorder):
        assert again["lmd"] < 0.5 * wrong["lmd"]
        assert again["ssim"] > wrong["ssim"] + 0.02
        assert again["psnr"] > wrong["psnr"] + 5
        assert again["perceptual"] < 0.7 * wrong["perceptual"]
        assert again["frechet"] < wrong["frechet"]
    for wrong in (untouched, frozen, disorder):
        # In three clips of a second a foreign sound may fit by chance: the untouched video need not be far below.
        assert real["confidence"] > (1 if wrong is untouched else 3) * wrong["confidence"]
        assert real["distance"] < 0.8 * wrong["distance"]
        assert real["in_sync"] >= wrong["in_sync"]
    assert real["in_sync"] == again["in_sync"] == 1.0
    assert frozen["jerk_of_real"] < 0.9 < again["jerk_of_real"] < 1.2 < disorder["jerk_of_real"]
    assert real["warp_error"] < frozen["warp_error"] and 1.3 * real["warp_error"] < disorder["warp_error"]
    assert min(row["identity"] for row in rows.values()) > ranked["strangers"] + 0.05
