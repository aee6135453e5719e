"""How large, how like the real one and how alive the movement of predicted mouths is, on people nobody trained on.

    python -m evaluation.movement --processed processed_dataset

Predicts the mouth shapes of validation clips from their sound: by the speech model alone, and with movement at several
temperatures. No picture is drawn. One row each:

    opening, width   correlation with the true one, and spread in parts of the true one's, mean over people
    closed           of the frames in which the lips are closed, how many are predicted so; of those, how many are
    jerk             third difference of the opening over time, spread in parts of the true one's
    pauses           in scenes with pauses: how much the opening moves 0.2 s after speech, in parts of what it does in
                     speech, and its mean there above that of the resting mouth, px
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from data.dataset import Clip, clip_activity, clip_resting, clip_shape, clip_speech, load_clips
from engines.lite.model import LipSyncModel
from faces.mouth_shape import MouthShape
from models.movement_track import MovementSettings
from models.speech_track import SpeechTrack
from training.movement_figures import Measures, Predicted
from training.speech import clip_spoken
from utils.config import Config, load_config
from utils.helpers import InputError

Array = np.ndarray
Predict = Callable[[SpeechTrack, Array, float], Array]


def predicted(processed: Path, split: str, config: Config, predict: Predict) -> list[Predicted]:
    """What is predicted for the clips, or scenes, of a split: `predict(speech, times, resting)` gives shapes (T, K)."""
    found = []
    for clip in load_clips(processed, split, config.data.window, config.data.fps):
        true, valid = clip_shape(clip)
        times = (np.arange(clip.frames) + clip.offset) / config.data.fps
        shape = predict(_speech(clip), times, float(clip_resting(clip)))
        found.append(Predicted(clip.person, true, shape, valid, clip_spoken(clip) if "scenes" in split else None))
    return found


def _speech(clip: Clip) -> SpeechTrack:
    features, activity = np.asarray(clip_speech(clip)[0], np.float32), clip_activity(clip)
    steps = min(len(features), len(activity))
    return SpeechTrack(features[:steps], activity[:steps])


def measure(processed: Path, split: str, config: Config, predict: Predict, shape: MouthShape) -> dict[str, float]:
    """All figures of a way to predict."""
    measures = Measures(shape, config.data.fps)
    figures = measures.clips(predicted(processed, split, config, predict))
    if (processed / f"{split}_scenes").is_dir():
        figures |= measures.scenes(predicted(processed, f"{split}_scenes", config, predict))
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="configuration file")
    parser.add_argument("--processed", type=Path, help="folder of the clips (default: data.processed_dir)")
    parser.add_argument("--split", default="val", help="whose clips (%(default)s)")
    parser.add_argument("--temperatures", type=float, nargs="+", default=(0.0, 0.5, 1.0), help="(%(default)s)")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        model = LipSyncModel.load(config.inference.weights_dir, config.size)
        processed, chosen = options.processed or config.data.processed_dir, config.inference
        ways: dict[str, Predict] = {"speech model": model.predict_shape}
        for value in options.temperatures:
            settings = MovementSettings(chosen.seed, value, chosen.movement_steps)
            ways[f"movement {value}"] = lambda speech, times, resting, s=settings: model.movement(
                speech, resting, s
            ).shapes(times)
        for name, predict in ways.items():
            figures = measure(processed, options.split, config, predict, model.mouth_shape)
            print(json.dumps({"way": name} | {key: round(value, 3) for key, value in figures.items()}), flush=True)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
