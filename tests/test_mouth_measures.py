"""The measures of the mouth rank a real, a frozen, a blurred and a doubled mouth as a viewer would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from evaluation.features import PACKAGES

for package in (*PACKAGES, "matplotlib"):
    if package != "face_recognition_models":  # cannot be imported beside current setuptools; its files are used
        pytest.importorskip(package)
from audio_processor import SAMPLE_RATE, load_audio  # noqa: E402
from evaluate import main, mouth_jobs, parse_arguments  # noqa: E402
from evaluation.mouth import closures, correlation, looks, movement, rest, teeth_share  # noqa: E402
from evaluation.mouth_reading import Mouth, read_mouth  # noqa: E402
from evaluation.reading import Place, find_place  # noqa: E402
from faces.alignment import JAW, LIPS_INNER, LIPS_OUTER, eye_distance  # noqa: E402
from models.phonemes import BILABIALS, VOWELS  # noqa: E402
from tests.footage import make_video  # noqa: E402
from tests.tiny_weights import tiny_config  # noqa: E402
from utils.config import Config, load_config  # noqa: E402
from video_processor import Patch, VideoReader, VideoWriter  # noqa: E402

REPO = Path(__file__).resolve().parent.parent
REAL_CLIP, SECONDS = "opentalker_p071_0000.mp4", 1.6  # a person never seen in training, teeth in sight
_MOVED = LIPS_OUTER + LIPS_INNER + JAW[4:-4]


def spoken(seed: int = 0, frames: int = 100) -> Mouth:
    """A mouth that opens and closes by chance, without a picture of it."""
    random = np.random.default_rng(seed)
    steps = np.convolve(random.normal(size=frames + 8), np.ones(9) / 9, mode="valid")
    opening = 0.01 + 0.15 * np.clip(steps - steps.min(), 0, None)
    crops = np.zeros((frames, 60, 60, 3), np.uint8)
    return Mouth(opening, 0.7 + 0.5 * opening[::-1], crops, np.zeros((frames, 20, 2)), 40.0)


def moved(mouth: Mouth, factor: float) -> Mouth:
    """The same mouth with `factor` times the movement around its mean."""
    opening, width = (v.mean() + factor * (v - v.mean()) for v in (mouth.opening, mouth.width))
    return replace(mouth, opening=opening, width=width)


def test_movement_is_a_part_of_the_real_one() -> None:
    real = spoken()
    for factor in (0.5, 1.0, 2.0):
        found = movement(moved(real, factor), real)
        assert found["opening_spread"] == pytest.approx(factor) and found["width_spread"] == pytest.approx(factor)
        assert found["correlation"] == pytest.approx(1.0)
    assert movement(moved(real, 0.0), real)["correlation"] == 0.0
    assert abs(movement(spoken(1), real)["correlation"]) < 0.5


def test_a_mouth_that_follows_the_old_one_leaks() -> None:
    old, new = spoken(0), spoken(5)
    mixed = replace(old, opening=0.5 * old.opening + 0.5 * new.opening)
    assert correlation(mixed.opening, old.opening) > 0.5 > abs(correlation(new.opening, old.opening))


def test_open_lips_do_not_rest() -> None:
    real = spoken()
    closed = replace(real, opening=np.full(100, np.percentile(real.opening, 5)))
    median = replace(real, opening=np.full(100, np.median(real.opening)))
    assert rest(closed, real)["rest"] <= 1.0
    assert rest(median, real)["rest"] > 1.3


def test_closures_count_with_open_vowels_only() -> None:
    real = spoken()
    low, high = np.percentile(real.opening, [15, 70])
    closed, vowel = min(BILABIALS), min(VOWELS)
    at_frames = np.where(real.opening <= low, closed, np.where(real.opening >= high, vowel, 0))
    track = np.repeat(at_frames, 2)  # 25 frames, 50 steps a second

    def row(mouth: Mouth) -> dict[str, float]:
        return closures(mouth, real, track, 0).row()

    shut = replace(real, opening=np.full(100, real.opening.min()))
    agape = replace(real, opening=np.full(100, real.opening.max()))
    late = replace(real, opening=np.roll(real.opening, 12))
    assert row(real)["closures"] == 1.0 and row(real)["vowels_open"] > 0.9
    assert row(shut)["closures"] == 1.0 and row(shut)["vowels_open"] == 0.0
    assert row(agape)["closures"] == 0.0 and row(agape)["vowels_open"] == 1.0
    assert row(real)["closed_to_open"] < row(late)["closed_to_open"] < row(agape)["closed_to_open"] == 1.0
    assert row(moved(real, 0.5))["closed_to_open"] > row(real)["closed_to_open"]
    assert closures(real, real, np.zeros(200, int), 0).row() == {}


@pytest.fixture(scope="module")
def real_clip(talking_faces: Path) -> tuple[Path, Place, Config, Mouth]:
    video, config = talking_faces / "test" / "videos" / REAL_CLIP, load_config(REPO / "model_config.yaml")
    place = find_place(video, config, SECONDS)
    return video, place, config, read_mouth(video, place, config)


def bent(image: np.ndarray, mesh: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The picture with lips and chin moved from where the mesh has them (468, 2) to the target (468, 2), px."""
    side = eye_distance(mesh)
    points, moves = target[_MOVED], (mesh - target)[_MOVED]
    x0, y0 = np.floor(points.min(0) - side / 2).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(points.max(0) + side / 2).astype(int), image.shape[1::-1])
    grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1).astype(np.float32)
    apart = np.square(grid[:, :, None] - points).sum(-1)
    weights = np.exp(-apart / (2 * (0.06 * side) ** 2))
    field = (weights @ moves) / (weights.sum(-1, keepdims=True) + 0.05)
    where = (grid + field).astype(np.float32)
    result = image.copy()
    result[y0:y1, x0:x1] = cv2.remap(image, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return result


def changed(clip: tuple[Path, Place, Config, Mouth], target: Path, kind: str) -> Mouth:
    """Write another version of the clip and read it: "frozen", "blurred" or "doubled"."""
    video, place, config, _ = clip
    meshes = place.meshes[..., :2]
    still = meshes.mean(axis=1, keepdims=True)
    shape = (meshes - still).mean(axis=0) + still  # the mean face at each frame's place
    with VideoReader(video) as reader, VideoWriter(target, reader.info, crf=10) as writer:
        for number, frame in enumerate(reader):
            index = number - place.first
            if not 0 <= index < len(place):
                break
            image, mesh = frame.image, meshes[index]
            if kind == "blurred":
                new = cv2.GaussianBlur(image, (0, 0), 0.025 * eye_distance(mesh))
            else:
                new = bent(image, mesh, shape[index] if kind == "frozen" else 2 * mesh - shape[index])
            mask = np.full(new.shape[:2], 1.0, np.float32)
            writer.write(frame, Patch(0, 0, new, mask))
    return read_mouth(target, place, config)


def test_real_frozen_blurred_and_doubled_mouths_are_ranked(
    real_clip: tuple[Path, Place, Config, Mouth], tmp_path: Path
) -> None:
    real = real_clip[3]
    frozen, blurred, doubled = (
        changed(real_clip, tmp_path / f"{kind}.mp4", kind) for kind in ("frozen", "blurred", "doubled")
    )
    spreads = [movement(mouth, real)["opening_spread"] for mouth in (frozen, real, doubled)]
    assert spreads[0] < 0.5 and spreads[1] == pytest.approx(1.0) and spreads[2] > 1.4
    assert movement(blurred, real)["opening_spread"] == pytest.approx(1.0, abs=0.2)
    assert movement(blurred, real)["correlation"] > 0.9 and movement(doubled, real)["correlation"] > 0.8
    assert looks(blurred, real)["detail"] < 0.8 < looks(doubled, real)["detail"]
    assert looks(real, real) == {"detail": 1.0, "teeth": 1.0}


def test_teeth_are_seen_and_a_dark_or_grey_mouth_has_none(real_clip: tuple[Path, Place, Config, Mouth]) -> None:
    real = real_clip[3]
    assert teeth_share(real) > 0.1
    crops = real.crops.copy()
    for crop, inner in zip(crops, real.inner, strict=True):
        cv2.fillPoly(crop, [np.round(inner).astype(np.int32)], (70, 60, 60))
    assert looks(replace(real, crops=crops), real)["teeth"] < 0.1


def test_the_command_measures_and_shows_mouths(tmp_path: Path, tiny_weights: Path) -> None:
    clips, weights = tmp_path / "test" / "videos", tmp_path / "weights"
    clips.mkdir(parents=True)
    (weights / "debug").mkdir(parents=True)
    for folder in (*tiny_weights.iterdir(), *(tiny_weights / "debug").iterdir()):
        if folder.name not in ("debug", "phonemes"):
            (weights / folder.relative_to(tiny_weights)).symlink_to(folder.resolve(), target_is_directory=True)
    (weights / "debug" / "phonemes").symlink_to(REPO / "pretrained" / "lite" / "phonemes", target_is_directory=True)
    make_video(clips / "large.mp4", 2.2, size=(240, 240))
    make_video(clips / "small.mp4", 2.2, size=(200, 200))
    (tmp_path / "test" / "texts").mkdir()
    (tmp_path / "test" / "texts" / "large.txt").write_text("No, you are late.")
    arguments = ["--config", str(tiny_config(tmp_path, weights)), "--output", str(tmp_path / "made")]
    arguments += ["--mouth", str(clips), "--seconds", "3", "--clips", "1", "--portraits"]
    report = ["--report", str(tmp_path / "mouths.html"), "--json", str(tmp_path / "mouths.json")]
    assert main([*arguments, *report]) == 0
    found = json.loads((tmp_path / "mouths.json").read_text())
    (clip,) = found["clips"]
    assert clip["clip"] == "large.mp4" and clip["left_out"] is None
    wanted = {"opening_spread", "width_spread", "correlation", "leak", "leak_spread", "rest", "detail"}
    assert wanted | {"portrait_opening_spread", "vowels_open"} <= set(found["mean"])
    assert "closures" not in found["mean"]  # the text has no p, b or m; the recogniser hears some in this sound
    assert (tmp_path / "mouths.html").read_text().count("data:image/jpeg;base64,") == 4

    # A clip whose sound is known to be two frames late is measured with its sound in step.
    (tmp_path / "processed" / "large").mkdir(parents=True)
    (tmp_path / "processed" / "large" / "meta.json").write_text('{"sync_offset": 2}')
    assert main([*arguments[:-1], "--in_step", str(tmp_path / "processed")]) == 0
    sounds = [load_audio(path, SAMPLE_RATE) for path in sorted((tmp_path / "made").rglob("sounds/large.wav"))]
    shifted, plain = sorted(sounds, key=len)
    moved = SAMPLE_RATE * 2 // 25
    np.testing.assert_allclose(shifted[: len(plain) - moved], plain[moved : moved + len(shifted)], atol=1e-4)


def test_a_sound_in_step_is_the_same_for_whoever_gets_it(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a", "b"):
        make_video(tmp_path / "clips" / f"{name}.mp4", 2.2)
        (tmp_path / "processed" / name).mkdir(parents=True)
        (tmp_path / "processed" / name / "meta.json").write_text('{"sync_offset": -3}')
    given = ["--mouth", str(tmp_path / "clips"), "--in_step", str(tmp_path / "processed"), "--output", str(tmp_path)]
    jobs = mouth_jobs(parse_arguments(given))
    assert [job.speech.audio for job in jobs] == [job.clip.audio for job in reversed(jobs)]
    assert all(job.clip.audio.parent == tmp_path / "in_step" for job in jobs)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--mouth"], "Give either"),
        (["--mouth", "x", "--cross", "x"], "--mouth does not go with"),
        (["--results", "x", "--ground_truth", "x", "--mouth", "--portraits"], "needs --mouth with a folder"),
        (["--mouth", "x", "--seconds", "1"], "2 or more"),
        (["--mouth", "no_such_folder"], "no_such_folder"),
    ],
)
def test_bad_requests_get_one_sentence(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert said in capsys.readouterr().err
