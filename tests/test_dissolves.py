"""Cross-fades between two scenes: found where they are, and nowhere else; nothing is drawn in them."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from faces.shots import scenes
from faces.usable import MIXED
from pipeline import LipSyncPipeline, Options
from tests import footage
from tests.test_planning import write
from tests.tiny_weights import tiny_config
from utils.config import load_config
from video_processor import VideoReader

SIZE = (96, 160)
FALSE_ALARMS = ("hard cut", "pan", "light", "flash", "fade through black", "somebody walks in")


def scene(seed: int) -> np.ndarray:
    """A made-up picture with structure of all sizes, float32 (H, W, 3)."""
    random = np.random.default_rng(seed)
    noise = (random.normal(0, 1, (n, 2 * n, 3)) for n in (2, 5, 12))
    layers = [cv2.resize(one, SIZE[::-1], interpolation=cv2.INTER_CUBIC) for one in noise]
    whole = sum(layer * size for layer, size in zip(layers, (3, 2, 1), strict=True))
    return np.float32(np.clip(128 + 28 * whole, 0, 255))


def alive(picture: np.ndarray, number: int) -> np.ndarray:
    """The same picture with somebody who moves in it, and grain."""
    moved = picture.copy()
    x = 40 + round(6 * np.sin(number / 3))
    moved[30:70, x : x + 30] = picture[30:70, 40:70]
    return np.clip(moved + np.random.default_rng(number).normal(0, 3, picture.shape), 0, 255)


def blended(one: np.ndarray, other: np.ndarray, frames: int) -> list[np.ndarray]:
    shares = (np.arange(frames) + 1) / (frames + 1)
    return [(1 - share) * alive(one, i) + share * alive(other, i) for i, share in enumerate(shares)]


def seen(images: list[np.ndarray], fps: float = 25.0) -> tuple[list[int], list[int]]:
    """Numbers of the frames that begin a scene, and of those that show two."""
    frames = [SimpleNamespace(image=np.uint8(np.round(image)), time=i / fps) for i, image in enumerate(images)]
    found = list(scenes(frames, 0.35))
    assert [one.frame for one in found] == frames
    return [i for i, one in enumerate(found) if one.cut], [i for i, one in enumerate(found) if one.mixed]


@pytest.mark.parametrize("length", [7, 12, 25, 35])
def test_a_dissolve_is_found_and_a_scene_begins_after_it(length: int) -> None:
    one, other = scene(1), scene(2)
    before, after = [alive(one, i) for i in range(30)], [alive(other, i) for i in range(30)]
    cuts, mixed = seen([*before, *blended(one, other, length), *after])
    assert len(cuts) == 1 and 30 + length - 3 <= cuts[0] <= 30 + length
    assert mixed == list(range(mixed[0], cuts[0])) and 30 <= mixed[0] <= 30 + max(1, length // 8)
    cuts, mixed = seen([*before, *blended(one, other, length), *after, *blended(other, one, length), *before])
    assert len(cuts) == 2 and len(mixed) > 1.5 * length


@pytest.mark.parametrize("what", FALSE_ALARMS)
def test_what_else_changes_a_picture_is_none(what: str) -> None:
    one, other = scene(1), scene(2)
    still = [alive(one, i) for i in range(30)]
    if what == "hard cut":
        middle = [alive(other, i) for i in range(40)]
    elif what == "pan":
        wide = np.hstack([one, other])
        middle = [alive(np.ascontiguousarray(wide[:, 4 * i : 4 * i + SIZE[1]]), i) for i in range(40)]
    elif what == "light":
        middle = [alive(one * np.float32(1 - 0.8 * i / 20), i) for i in range(20)]
        middle += middle[::-1]
    elif what == "flash":
        middle = [np.full_like(one, 250.0)] * 2 + still
    elif what == "fade through black":
        middle = [one * np.float32(max(0.0, 1 - i / 12)) for i in range(16)]
        middle += [other * np.float32(min(1.0, i / 12)) for i in range(16)] + [alive(other, i) for i in range(30)]
    else:
        middle = []
        for i in range(20):
            picture = alive(one, i)
            picture[:, : 8 * i] = other[:, SIZE[1] - 8 * i :]
            middle.append(picture)
        middle += [alive(other, i) for i in range(30)]
    assert seen([*still, *middle])[1] == []


def test_nothing_is_drawn_in_a_dissolve(tiny_weights: Path, tmp_path: Path) -> None:
    config = load_config(tiny_config(tmp_path, tiny_weights))
    lip_sync = LipSyncPipeline.load(config, torch.device("cpu"))
    one = [np.float32(footage.face_frame(i / 25)) for i in range(34)]
    other = [np.float32(np.roll(footage.face_frame(i / 25)[:, ::-1], 90, axis=1)) for i in range(34)]
    shares = np.concatenate([np.zeros(12), (np.arange(10) + 1) / 11, np.ones(12)])
    images = [np.uint8(np.round((1 - s) * a + s * b)) for s, a, b in zip(shares, one, other, strict=True)]
    video = write(tmp_path / "video.mp4", images)
    sound = footage.make_sound(tmp_path / "s.wav", 34 / 25)
    done = lip_sync.run(video, sound, tmp_path / "out.mkv", Options(steps=1, codec="ffv1", fit="cut"))
    assert done.passed_through.keys() == {MIXED} and 8 <= done.passed_through[MIXED] <= 10
    assert "between two scenes" in done.left_as_they_were()
    with VideoReader(video) as before, VideoReader(done.output) as after:
        changed = [bool((x.image != y.image).any()) for x, y in zip(before, after, strict=True)]
    assert not any(changed[13:21]) and all(changed[2:8]) and all(changed[24:30])


PEOPLE = ("opentalker_p071_0000", "kleinlee_p118_0000", "zejunyang_p077_0000", "anshsareen_p073_0000")


def test_real_people_dissolve_into_each_other_and_do_not_alone(talking_faces: Path) -> None:
    clips = []
    for name in PEOPLE:
        with VideoReader(talking_faces / "test" / "videos" / f"{name}.mp4") as reader:
            frames = itertools.islice(reader, 60)
            clips.append([np.float32(cv2.resize(frame.image, SIZE[::-1])) for frame in frames])
        assert seen(clips[-1]) == ([], [])
    found = 0
    for one, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        shares = (np.arange(14) + 1) / 15
        middle = [(1 - share) * a + share * b for share, a, b in zip(shares, one[20:], other, strict=False)]
        cuts, mixed = seen([*one[:20], *middle, *other[14:44]])
        found += len(cuts) == 1 and 31 <= cuts[0] <= 34 and len(mixed) >= 11
    assert found >= 3
