"""What drawing loses of sync, and what it leaves of the old mouth, apart from how movement is predicted.

    python benchmarks/bench_drawing.py processed_dataset --split val --clips 8

On mouth windows, without a video around them, judged by `syncnet_judge` (evaluation/sync.py). One row for each person's
longest clip of three seconds or more, its first 4.4 s:

    real       the clip with its own sound
    ideal      picture and sound rotated in time by half of the clip: the same with one cut
    drawn      its true shapes, rotated, drawn over its frames as they are, with the rotated sound
    predicted  another clip's speech, its movement predicted, drawn over its frames (`--weights` names the folder)
    leak       the mouth at rest in all frames, with the clip's own sound: what is left of the old mouth
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, this file sees benchmarks/ only

from audio_processor import SAMPLE_RATE  # noqa: E402
from data.dataset import Clip, clip_samples, decode_crops, load_clips, longest_of_each  # noqa: E402
from engines.lite.engine import Lite  # noqa: E402
from engines.lite.model import LipSyncModel  # noqa: E402
from evaluation.sync import Judge  # noqa: E402
from faces.bank import MouthPicker, lips_of  # noqa: E402
from faces.mouth_shape import RESTING_OPENING_PX, SHAPE_POINTS, mouth_opening  # noqa: E402
from faces.mouth_windows import MouthFrame  # noqa: E402
from faces.person import Person  # noqa: E402
from faces.turned import resting, seen_aside, with_own_jaw  # noqa: E402
from faces.warp import draft  # noqa: E402
from models.movement_track import MovementSettings  # noqa: E402
from models.phonemes import lip_closure, steps_around  # noqa: E402
from utils.config import Config, load_config  # noqa: E402

LEAST_S, MOST_S = 3.0, 4.4
FPS = 25
Array = np.ndarray


@dataclass(frozen=True)
class Footage:
    """The first seconds of a clip, T frames, in step.

    Attributes:
        frames: with mouth windows.
        samples: its sound, mono 16 kHz.
    """

    frames: list[MouthFrame]
    samples: Array

    @property
    def windows(self) -> Array:
        """uint8 (T, 160, 160, 3)."""
        return np.stack([frame.window for frame in self.frames])

    @property
    def pose(self) -> Array:
        """(T, 3) degrees."""
        return np.stack([frame.pose for frame in self.frames])

    @property
    def points(self) -> Array:
        """Lips and jaw (T, P, 2), window px."""
        return np.stack([frame.points[SHAPE_POINTS] for frame in self.frames])

    def cut(self, count: int) -> Footage:
        """Only the first frames, and their sound."""
        return replace(self, frames=self.frames[:count], samples=self.samples[: count * SAMPLE_RATE // FPS])


def load(clip: Clip) -> Footage:
    """Read a processed clip."""
    moved = clip.offset * SAMPLE_RATE // FPS
    samples = clip_samples(clip)
    samples = samples[moved:] if moved > 0 else np.concatenate([np.zeros(-moved, np.float32), samples])
    count = min(clip.frames, int(MOST_S * FPS), len(samples) * FPS // SAMPLE_RATE)
    windows = decode_crops(clip.directory / "crops.mp4")[:count]
    with np.load(clip.directory / "tracks.npz") as tracks:
        points, pose = (tracks[name][:count].astype(np.float32) for name in ("points", "pose"))
    matrix = np.eye(2, 3, dtype=np.float32)
    frames = [
        MouthFrame(None, number / FPS, window.shape[:2], 0, None, window, matrix, points[number], pose[number])
        for number, window in enumerate(windows)
    ]
    return Footage(frames, samples[: count * SAMPLE_RATE // FPS])


def longest(processed: Path, split: str, count: int) -> list[Clip]:
    """The longest clip of each person that is long enough, longest first."""
    best = longest_of_each(load_clips(processed, split, int(LEAST_S * FPS), FPS))
    return sorted(best, key=lambda clip: (-clip.frames, clip.name))[:count]


def rotated(values: Array, count: int) -> Array:
    """The second half of a series first; `count` is how many of its values belong to the first half."""
    return np.concatenate([values[count:], values[:count]])


class Bench:
    """Draws and judges.

    Args:
        config: how it is drawn.
        weights: folder of the networks.
    """

    def __init__(self, config: Config, weights: Path) -> None:
        self._config = config
        self._model = LipSyncModel.load(weights, config.size)
        self._engine = Lite.of(self._model, config)
        own = ROOT / "pretrained"
        self._judge = Judge(own / "lite" / "syncnet_judge", own / "whisper_tiny_en_encoder")

    def row(self, own: Footage, other: Footage) -> dict[str, float]:
        """Confidences of one clip."""
        person, shape = self._engine.meet(own.frames), self._model.mouth_shape
        base, half = resting(shape, person.neutral, own.points, own.pose), len(own.frames) // 2
        sound = rotated(own.samples, half * SAMPLE_RATE // FPS)
        said = shape.decode(rotated(shape.encode_lips(own.points, base), half), base)
        count = min(len(own.frames), len(other.frames))
        heard = seen_aside(self._predicted(person, base[:count], other.samples), base[:count], own.pose[:count])
        return {
            "real": self._score(own.windows, own.samples),
            "ideal": self._score(rotated(own.windows, half), sound),
            "drawn": self._score(self._drawn(own, person, base, shape.parted(said, base)), sound),
            "predicted": self._score(self._drawn(own.cut(count), person, base[:count], heard), other.samples),
            "leak": self._score(self._drawn(own, person, base, base), own.samples),
        }

    def _predicted(self, person: Person, base: Array, samples: Array) -> Array:
        """Where lips and jaw shall be (T, P, 2) while somebody says something else."""
        chosen, shape, times = self._config.inference, self._model.mouth_shape, np.arange(len(base)) / FPS
        speech = self._model.hear(samples)
        settings = MovementSettings(chosen.seed, chosen.movement_temperature, chosen.movement_steps)
        moved = self._model.movement(speech, RESTING_OPENING_PX, settings).shapes(times)
        points = shape.decode(chosen.mouth_gain * moved, base)
        points = shape.scaled(points, base, chosen.opening_gain * person.lively.opening, person.lively.width)
        first, stop = steps_around(times, chosen.lip_closing_s)
        met = lip_closure(self._model.lips_met(speech, first, stop), first, times, chosen.lip_closing_s)
        return shape.parted(shape.closed(points, base, chosen.lip_closing * met), base)

    def _drawn(self, footage: Footage, person: Person, base: Array, wanted: Array) -> Array:
        """Windows uint8 (T, 160, 160, 3) with lips and jaw at `wanted` (T, P, 2)."""
        wanted = with_own_jaw(self._model.mouth_shape, wanted, footage.points)
        picks = MouthPicker().pick(person.bank, lips_of(wanted - base), footage.pose)
        closed = float(mouth_opening(base[:1])[0])
        parts = zip(footage.windows, footage.points, wanted, (pick.mouths for pick in picks), strict=True)
        return np.stack([draft(*part, closed) for part in parts])

    def _score(self, windows: Array, samples: Array) -> float:
        seen = self._judge.see(SimpleNamespace(windows=windows))
        return self._judge.compare(seen, self._judge.hear(samples), 0).confidence


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("processed", type=Path, help="folder that data/preprocess.py wrote")
    parser.add_argument("--split", default="val", help="whose clips (%(default)s)")
    parser.add_argument("--clips", type=int, default=8, help="at most so many people (%(default)s)")
    parser.add_argument("--weights", type=Path, default=ROOT / "pretrained", help="folder of the networks")
    options = parser.parse_args(arguments)
    bench = Bench(load_config(ROOT / "model_config.yaml"), options.weights)
    footage = [load(clip) for clip in longest(options.processed, options.split, options.clips)]
    rows = [bench.row(own, footage[(index + 3) % len(footage)]) for index, own in enumerate(footage)]
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:10} {np.mean(values):.3f}   ", " ".join(f"{value:.2f}" for value in values))


if __name__ == "__main__":
    main()
