"""Speed and memory of the whole way, from files to a file.

    python benchmarks/bench_pipeline.py
    python benchmarks/bench_pipeline.py --set inference.backend=torch
    python benchmarks/bench_pipeline.py --video talk.mp4 --audio speech.wav --steps 4 --json result.json

Without --video it makes a 10 s 1280x720 clip: the astronaut of scikit-image in a wide frame, moving slightly.
Seconds of a stage are work without waiting; stages run at the same time, so their rates say what each could do alone.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import skimage.data
import soundfile
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees benchmarks/ only

from pipeline import LipSyncPipeline, Summary  # noqa: E402
from pipeline.options import Options  # noqa: E402
from utils.config import Config, load_config  # noqa: E402
from utils.helpers import InputError, resolve_device  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FPS = 25
SIZE = (1280, 720)


def make_clip(path: Path, seconds: float, fps: int = FPS) -> Path:
    """Write the built-in clip: H.264, 1280x720, no sound."""
    portrait, (width, height) = skimage.data.astronaut(), SIZE
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "18", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(round(seconds * fps)):
            turn = 2 * np.pi * index / fps
            scale = 1.6 + 0.03 * np.sin(0.4 * turn)
            x, y = 640 - scale * 225 + 10 * np.sin(0.3 * turn), 360 - scale * 170 + 6 * np.cos(0.2 * turn)
            matrix = np.array([[scale, 0, x], [0, scale, y]])
            image = cv2.warpAffine(portrait, matrix, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def make_speech(path: Path, source: Path, seconds: float) -> Path:
    """Write `seconds` of a speech file, repeated as often as needed."""
    samples, rate = soundfile.read(source, dtype="float32", always_2d=True)
    count = round(seconds * rate)
    soundfile.write(path, np.tile(samples, (-(-count // len(samples)), 1))[:count], rate)
    return path


def measure(arguments: argparse.Namespace, config: Config, folder: Path) -> dict[str, object]:
    """Load the networks, run the pipeline twice, the first time for a second of sound, and return all figures."""
    video = arguments.video or make_clip(folder / "clip.mp4", arguments.seconds)
    audio = arguments.audio or make_speech(folder / "speech.wav", ROOT / "examples" / "speech.wav", arguments.seconds)
    chosen = config.inference
    options = Options(
        steps=arguments.steps or chosen.steps,
        guidance=chosen.guidance if arguments.guidance is None else arguments.guidance,
        seed=chosen.seed,
        crf=chosen.crf,
        fast=arguments.fast,
    )
    started = time.perf_counter()
    pipeline = LipSyncPipeline.load(config, resolve_device(arguments.device))
    loaded = time.perf_counter() - started
    # The first frames wait for what loads in the background; they are not what is measured.
    short = make_speech(folder / "warm.wav", ROOT / "examples" / "speech.wav", 1.0)
    pipeline.run(video, short, folder / "warm.mp4", replace(options, rest="cut"))
    computed = time.process_time()
    summary = pipeline.run(video, audio, folder / "result.mp4", options)
    return figures(summary, options, loaded, time.process_time() - computed)


def figures(summary: Summary, options: Options, loading: float, computed: float) -> dict[str, object]:
    """What is printed, as plain numbers."""
    return {
        "frames": summary.frames,
        "generated": summary.generated,
        "steps": options.steps,
        "guidance": options.guidance,
        "seconds": round(summary.seconds, 2),
        "load_seconds": round(loading, 2),
        "fps": round(summary.fps, 2),
        "cpu_ms_per_frame": round(1000 * computed / summary.frames, 1),
        "stage_fps": {name: round(summary.frames / max(s, 1e-6), 1) for name, s in summary.stages.items()},
        "stage_seconds": {name: round(s, 2) for name, s in summary.stages.items()},
        "peak_memory_mb": round(peak_memory_mb()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def table(result: dict[str, object]) -> str:
    """The figures for a person to read."""
    lines = [f"{'stage':<12}{'frames/s':>10}{'seconds':>10}"]
    for name, rate in result["stage_fps"].items():
        lines.append(f"{name:<12}{rate:>10.1f}{result['stage_seconds'][name]:>10.2f}")
    lines.append(f"{'end to end':<12}{result['fps']:>10.2f}{result['seconds']:>10.2f}")
    lines.append(f"{result['frames']} frames, {result['generated']} with a new mouth, {result['steps']} steps")
    lines.append(f"{result['cpu_ms_per_frame']} ms of CPU time for each frame")
    lines.append(
        f"peak memory {result['peak_memory_mb']} MB, loading {result['load_seconds']} s, {result['cores']} cores"
    )
    return "\n".join(lines)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="measure this video instead of the built-in clip")
    parser.add_argument("--audio", type=Path, help="with this speech (default: the example, repeated)")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="length of the built-in clip (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, help="denoising steps (default: the configuration's)")
    parser.add_argument("--guidance", type=float, help="guidance (default: the configuration's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="replace a setting")
    parser.add_argument("--fast", action="store_true", help="as --fast of the program")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--config", type=Path, default=ROOT / "model_config.yaml", help="settings file")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table, and return the exit code."""
    args = parse_arguments(arguments)
    logging.getLogger("diffusers").setLevel(logging.ERROR)  # its hints are for developers
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = measure(args, load_config(args.config, args.set), Path(folder))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
