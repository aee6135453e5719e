"""Measures how far each clip's sound is off its picture by mouth shapes alone, for data sets without a sync network.

    python -m data.shape_offsets --processed processed_dataset

The speech model of an exported generator predicts from the sound how far the mouth is open; where that fits the
measured opening best, shifted by whole frames, sound and picture are in step. Writes ``sync_offset`` into each
clip's meta.json: 0 where the best shift is no clear winner. No sync network is asked, so one that scores stays
independent.
`data/preprocess.py --sync_network` is the better way where there is a `syncnet`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data.dataset import Clip, clip_activity, clip_resting, clip_shape, clip_speech, load_clips
from faces.mouth_shape import NUM_POINTS, MouthShape, mouth_opening
from latent_diffusion import LatentLipDiffusion
from models.checkpoint import load_pretrained
from models.speech_model import SpeechModel
from utils.config import load_config
from utils.helpers import InputError, atomic_path

MIN_CORRELATION = 0.4  # at the best shift; chance alone reaches that in clips of a second now and then
MIN_GAIN = 0.05  # of that over the correlation without a shift
LEAST_FRAMES = 16  # that both have in common at every shift


@torch.no_grad()
def predicted_opening(model: SpeechModel, clip: Clip, opening: np.ndarray, margin: int, fps: int) -> np.ndarray:
    """How far the mouth should be open (frames + 2 * margin,) from `margin` frames before the clip to as many after."""
    times = (np.arange(-margin, clip.frames + margin, dtype=np.float32)) / fps
    speech, activity = (np.asarray(x, np.float32) for x in (clip_speech(clip)[0], clip_activity(clip)))
    speech, activity, times = (torch.from_numpy(x)[None] for x in (speech, activity, times))
    resting = torch.tensor([clip_resting(clip)])
    return model(speech, None, times, activity=activity, resting=resting).shape[0].numpy() @ opening


def best_shift(predicted: np.ndarray, measured: np.ndarray, valid: np.ndarray, margin: int) -> int:
    """By how many frames the sound is late (frame i belongs to the sound at frame i + shift); 0 where that is unclear.

    Args:
        predicted: opening (T + 2 * margin,) from the sound.
        measured: opening (T,) in the picture.
        valid: which frames count (T,) bool.
        margin: the largest shift, frames.
    """
    scores = {}
    for shift in range(-margin, margin + 1):
        heard = predicted[margin + shift : margin + shift + len(measured)][valid]
        scores[shift] = _correlation(heard, measured[valid])
    best = max(scores, key=scores.get)
    clear = scores[best] >= MIN_CORRELATION and scores[best] - scores[0] >= MIN_GAIN
    return best if clear else 0


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if len(a) >= LEAST_FRAMES and a.std() > 1e-6 and b.std() > 1e-6 else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="configuration file")
    parser.add_argument("--processed", type=Path, help="folder of the clips (default: data.processed_dir)")
    parser.add_argument("--generator", type=Path, help="exported generator (default: that of the weights)")
    parser.add_argument("--most", type=int, default=4, metavar="FRAMES", help="largest shift (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        weights = config.training.common.weights_dir
        model = load_pretrained(LatentLipDiffusion, options.generator or weights / config.size / "generator").speech
        components = MouthShape.load(weights / "mouth_shape").components
        opening = mouth_opening(components.reshape(len(components), NUM_POINTS, 2))
        processed, fps = options.processed or config.data.processed_dir, config.data.fps
        for split in (path.name for path in sorted(processed.iterdir()) if path.name in ("train", "val", "test")):
            found: Counter[int] = Counter()
            for clip in tqdm(load_clips(processed, split, config.data.window, fps), desc=split, unit="clip"):
                shape, valid = clip_shape(clip)
                predicted = predicted_opening(model, clip, opening, options.most, fps)
                shift = best_shift(predicted, shape @ opening, valid, options.most)
                _write(clip.directory / "meta.json", shift)
                found[shift] += 1
            print(split, dict(sorted(found.items())))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write(path: Path, shift: int) -> None:
    meta = json.loads(path.read_text(encoding="utf-8"))
    with atomic_path(path) as scratch:
        scratch.write_text(json.dumps(meta | {"sync_offset": shift}, ensure_ascii=False, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
