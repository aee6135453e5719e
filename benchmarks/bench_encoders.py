"""How near to the source the written video is where nothing was changed, for every codec at a quality.

    python benchmarks/bench_encoders.py clip.mp4 --crf 16

Whole frames are written as they are; PSNR (dB) and SSIM are those of the decoded RGB, the least of the frames looked
at and their mean. "kbit/s" is the video's own rate.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from video_processor import Frame, VideoReader, VideoWriter, probe_video  # noqa: E402

_KINDS = (("h264", ".mp4"), ("hevc", ".mp4"), ("auto", ".webm"), ("ffv1", ".mkv"))
_EVERY = 5  # frames; each so-manieth is compared


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--crf", type=int, default=16)
    parser.add_argument("--frames", type=int, default=60)
    given = parser.parse_args()
    info = probe_video(given.video)
    with VideoReader(given.video) as reader:
        frames = list(itertools.islice(reader, given.frames))
    print(f"{given.video.name}: {info.width}x{info.height}, {info.pix_fmt}, {len(frames)} frames, crf {given.crf}")
    print("| codec | PSNR least | mean | SSIM least | mean | kbit/s | frames/s |\n| --- |" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as folder:
        for codec, suffix in _KINDS:
            target = Path(folder) / f"written{suffix}"
            began = time.perf_counter()
            with VideoWriter(target, info, codec, given.crf) as writer:
                for frame in frames:
                    writer.write(frame)
            speed = len(frames) / (time.perf_counter() - began)
            rate = target.stat().st_size * 8 / 1000 / (len(frames) / float(info.fps))
            print(f"| {codec} in {suffix} | {_compared(target, frames)} | {rate:.0f} | {speed:.0f} |", flush=True)


def _compared(target: Path, frames: list[Frame]) -> str:
    with VideoReader(target) as reader:
        pairs = [(a.image, b.image) for a, b in zip(frames, reader, strict=True)][::_EVERY]
    with np.errstate(divide="ignore"):
        noise = [peak_signal_noise_ratio(a, b) for a, b in pairs]
    similar = [structural_similarity(a, b, channel_axis=-1) for a, b in pairs]
    return f"{min(noise):.1f} | {np.mean(noise):.1f} | {min(similar):.4f} | {np.mean(similar):.4f}"


if __name__ == "__main__":
    main()
