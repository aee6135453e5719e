"""A tiny processed data set, made on the spot: mouths that open with the loudness of their sound."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from scipy.io import wavfile

from faces.mouth_shape import LIPS_INNER, LIPS_OUTER, NUM_POINTS

SIDE, FPS, COEFFICIENTS = 160, 25, 10
SPEECH_SHAPE = (5, 384)


def make_processed(root: Path, people: int = 3, clips: int = 2, frames: int = 40, seed: int = 0) -> Path:
    """Write train and val clips under `root` and return it."""
    random = np.random.default_rng(seed)
    for split in ("train", "val"):
        for person in range(people):
            skin = random.integers(90, 220, 3)
            for number in range(clips):
                name = f"{split}_{person}_{number}"
                write_clip(root / split / name, f"{split}{person}", skin, frames, random)
    return root


def write_clip(folder: Path, person: str, skin: np.ndarray, frames: int, random: np.random.Generator) -> None:
    """Write one clip: a dark ellipse whose height follows a smooth random curve, with sound and features to match."""
    folder.mkdir(parents=True)
    curve = np.convolve(random.normal(size=frames + 8), np.hanning(9) / 2, mode="valid")
    _write_video(folder / "crops.mp4", skin, curve)
    loud = np.repeat(np.clip(curve + 1.5, 0, 3), 16000 // FPS) / 6
    wavfile.write(folder / "audio.wav", 16000, (loud * random.normal(size=len(loud)) * 8000).astype(np.int16))
    shape = np.zeros((frames, COEFFICIENTS), np.float32)
    shape[:, 0] = curve
    speech = 0.1 * random.normal(size=(1, 2 * frames, *SPEECH_SHAPE))
    speech[..., :48] += np.repeat(curve, 2)[None, :, None, None]
    np.save(folder / "speech.npy", speech.astype(np.float16))
    np.save(folder / "activity.npy", np.repeat(curve > -1.5, 2).astype(np.float16))
    np.savez(
        folder / "tracks.npz",
        points=np.zeros((frames, 468, 2), np.float16),
        shape=shape,
        base=np.repeat(resting_mouth()[None], frames, axis=0).astype(np.float16),
        pose=np.zeros((frames, 3), np.float32),
        matrix=np.zeros((frames, 2, 3), np.float32),
        valid=np.ones(frames, bool),
    )
    meta = {
        "clip_id": folder.name,
        "person": person,
        "language": "en",
        "text": None,
        "source": "made",
        "frames": frames,
        "sync_offset": None,
    }
    (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def resting_mouth() -> np.ndarray:
    """Lip and jaw points (P, 2), window px: two ellipses, the inner one nearly closed, and a half circle below."""

    def arc(count: int, width: float, height: float, start: float, stop: float) -> np.ndarray:
        angle = np.linspace(start, stop, count, endpoint=stop - start < 6)
        return np.stack([80 + width * np.cos(angle), 90 + height * np.sin(angle)], axis=1)

    lips = [arc(len(LIPS_OUTER), 34, 14, np.pi, 3 * np.pi), arc(len(LIPS_INNER), 26, 3, np.pi, 3 * np.pi)]
    return np.concatenate([*lips, arc(NUM_POINTS - len(LIPS_OUTER) - len(LIPS_INNER), 70, 60, 0, np.pi)])


def _write_video(path: Path, skin: np.ndarray, curve: np.ndarray) -> None:
    y, x = np.mgrid[:SIDE, :SIDE]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "14", "preset": "ultrafast"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv444p"
        for value in curve:
            height = 6 + 8 * np.clip(value + 1.5, 0, 3)
            image = np.broadcast_to(skin, (SIDE, SIDE, 3)).astype(np.uint8).copy()
            image[((x - 80) / 34) ** 2 + ((y - 90) / height) ** 2 < 1] = (60, 20, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
