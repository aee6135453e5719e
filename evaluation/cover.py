"""How well covered mouths are told from free ones, on people nobody trained on.

    python -m evaluation.cover --processed processed_dataset --split test

Of each person's longest clip every third window of the first six seconds: as it is, and with a thing drawn over the
mouth that hides it (`data.occlusions`). Prints the shares that count as covered, with the windows that they are of:

    free      windows as they are, of heads turned by up to 15 degrees (ahead), and by more (turned)
    covered   windows with something in front, by kind
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.dataset import Clip, decode_crops, load_clips, longest_of_each
from data.occlusions import KINDS, covered, draw_sprite, put, skin_colour
from models.cover import CoverJudge
from training.cover import MOUTH_MIDDLE, TURNED_DEG
from utils.config import load_config
from utils.helpers import InputError

FRAMES = slice(0, 150, 3)
TRIES = 20  # things that are drawn before one hides the mouth
Array = np.ndarray


def hidden(window: Array, points: Array, kind: str, random: np.random.Generator) -> Array | None:
    """A mouth window (160, 160, 3) with a thing of this kind that hides the mouth; None where none does.

    Args:
        window: uint8 RGB (160, 160, 3).
        points: its mesh (468, 2), window px.
        kind: one of `data.occlusions.KINDS`.
        random: source of chance.
    """
    for _ in range(TRIES):
        centre = np.array(MOUTH_MIDDLE) + random.normal(0, 18, 2)
        sprite = draw_sprite(kind, skin_colour(window, points), random)
        image, alpha = put(window, sprite, tuple(centre), random.uniform(0.7, 1.4), random.uniform(-np.pi, np.pi))
        if covered(alpha, points).hides_the_mouth:
            return image
    return None


def measure(clips: Sequence[Clip], judge: CoverJudge, limit: float, seed: int = 0) -> dict[str, dict[str, float]]:
    """Shares of windows that count as covered.

    Args:
        clips: processed clips.
        judge: the chance, 0 to 1, that a mouth window is covered.
        limit: the chance from which on it counts as covered.
        seed: of what is drawn.

    Returns:
        "free" and "covered", each with the share by group and how many windows that are.
    """
    random, found = np.random.default_rng(seed), defaultdict(list)
    for clip in longest_of_each(clips):
        with np.load(clip.directory / "tracks.npz") as tracks:
            points, pose = (tracks[name][FRAMES].astype(np.float32) for name in ("points", "pose"))
        for index, window in enumerate(decode_crops(clip.directory / "crops.mp4")[FRAMES]):
            side = "turned" if abs(pose[index, 0]) > TURNED_DEG else "ahead"
            found["free", side].append(judge(window) > limit)
            kind = str(random.choice(KINDS))
            image = hidden(window, points[index], kind, random)
            if image is not None:
                found["covered", kind].append(judge(image) > limit)
    table: dict[str, dict[str, float]] = {"free": {}, "covered": {}}
    for (group, name), values in sorted(found.items()):
        table[group] |= {name: round(float(np.mean(values)), 4), f"{name}_windows": len(values)}
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="configuration file")
    parser.add_argument("--processed", type=Path, help="folder of the clips (default: data.processed_dir)")
    parser.add_argument("--split", default="val", help="whose clips (%(default)s)")
    parser.add_argument("--weights", type=Path, help="folder of the network (default: faces.cover_dir)")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        processed = options.processed or config.data.processed_dir
        clips = load_clips(processed, options.split, config.data.window, config.data.fps)
        judge = CoverJudge(options.weights or config.faces.cover_dir)
        print(json.dumps(measure(clips, judge, config.faces.max_cover), indent=1))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
