"""What the fast networks cost in quality, against the same networks in float32 in PyTorch, on real clips.

    python benchmarks/bench_quality.py CLIP.mp4 [CLIP.mp4 ...]

Each clip is made to speak its own sound. PSNR is that of the generated mouth windows inside the mask, over all frames
of a clip; LSE-C is the judge's confidence in the written video (evaluation/sync.py).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, this file sees benchmarks/ only

from audio_processor import load_audio  # noqa: E402
from evaluation.reading import find_place, read  # noqa: E402
from evaluation.sync import Judge  # noqa: E402
from latent_diffusion import LIPS_PX  # noqa: E402
from pipeline import LipSyncPipeline, job  # noqa: E402
from pipeline.options import Options  # noqa: E402
from utils.config import Config, load_config  # noqa: E402

_PRECISIONS = ("engines.lite.model", "models.networks", "models.audio_encoder")
WAYS = {"exact": {}, "default": {}, "fast": {"fast": True}, "exact fast": {"fast": True}}
"""What is compared: the default with "exact", --fast with "exact fast" (the same windows in float32)."""


@contextmanager
def float32() -> Iterator[None]:
    """Let networks that are loaded and run in this block compute in float32."""
    with ExitStack() as stack:
        for module in _PRECISIONS:
            stack.enter_context(mock.patch(f"{module}.fast_dtype", lambda device: torch.float32))
        yield


class Maker:
    """Makes videos, and remembers the generated mouth windows.

    Args:
        config: with the backend.
    """

    def __init__(self, config: Config):
        self._pipeline = LipSyncPipeline.load(config, torch.device("cpu"))

    def make(self, clip: Path, output: Path, **options: Any) -> np.ndarray:
        """Write the video; returns uint8 (F, 160, 160, 3)."""
        pictures, render = [], job.render_mouths

        def recorded(*arguments: Any) -> Iterator[Any]:
            for mouth, picture in render(*arguments):
                pictures.append(picture)
                yield mouth, picture

        with mock.patch.object(job, "render_mouths", recorded):
            self._pipeline.run(clip, clip, output, Options(rest="cut", **options))
        return np.stack([picture for picture in pictures if picture is not None])


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Of windows uint8 (F, 160, 160, 3) where lips are drawn, dB."""
    rows, columns = LIPS_PX
    error = float(np.mean((a[:, rows, columns].astype(np.float32) - b[:, rows, columns]) ** 2))
    return 10 * np.log10(255**2 / max(error, 1e-9))


def measure(clips: list[Path], config: Config, folder: Path) -> Iterator[dict[str, float]]:
    """For each clip: PSNR of "default" and "fast", and LSE-C of all WAYS."""
    weights = ROOT / config.inference.weights_dir
    judge = Judge(weights / config.size / "syncnet_judge", weights / "whisper_tiny_en_encoder")
    quick = Maker(config.model_copy(update={"inference": config.inference.model_copy(update={"backend": "openvino"})}))
    torch_only = config.inference.model_copy(update={"backend": "torch"})
    with float32():
        exact = Maker(config.model_copy(update={"inference": torch_only}))
    for clip in clips:
        place, heard = find_place(clip, config), judge.hear(load_audio(clip))
        windows, scores = {}, {}
        for way, options in WAYS.items():
            output = folder / "out.mp4"
            with float32() if way.startswith("exact") else ExitStack():
                windows[way] = (exact if way.startswith("exact") else quick).make(clip, output, **options)
            reading = read(output, place, config)
            scores[way] = judge.compare(judge.see(reading), heard, reading.first).confidence
        yield {
            "frames": len(windows["exact"]),
            "psnr default": psnr(windows["default"], windows["exact"]),
            "psnr fast": psnr(windows["fast"], windows["exact fast"]),
            **{f"lse_c {way}": score for way, score in scores.items()},
        }


def main(arguments: list[str] | None = None) -> int:
    """Print a line for each clip and one for all, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, help="videos of one speaker with sound")
    clips = parser.parse_args(arguments).clips
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(clips, load_config(ROOT / "model_config.yaml"), Path(folder))
        for clip, row in zip(clips, measured, strict=True):
            rows.append(row)
            print(clip.stem, " ".join(f"{name} {value:.3f}" for name, value in row.items()), flush=True)
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    print("mean", " ".join(f"{name} {value:.3f}" for name, value in means.items()))
    print("least psnr", " ".join(f"{way} {min(row[f'psnr {way}'] for row in rows):.2f}" for way in ("default", "fast")))
    for way in ("default", "fast"):
        change = 100 * (means[f"lse_c {way}"] / means["lse_c exact"] - 1)
        print(f"LSE-C {way} against float32: {change:+.2f} %")
    return 0


if __name__ == "__main__":
    sys.exit(main())
