"""Memory over time of short and long videos, each in a process of its own, on one plot.

    python benchmarks/bench_memory.py --seconds 10 60 600 --plot docs/images/memory.png --json memory.json

The clip is that of bench_pipeline.py. Memory is the resident size of the process, taken four times a second; the speed
beside it is that of the whole run.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees benchmarks/ only

from benchmarks.bench_pipeline import ROOT, make_clip, make_speech  # noqa: E402

INTERVAL_S = 0.25
PERIOD_S = 10.0  # after which the movement of the clip begins anew


def repeated(part: Path, target: Path, seconds: float) -> Path:
    """Copy a clip over and over, without encoding it again, up to so many seconds."""
    with av.open(str(part)) as source, av.open(str(target), "w") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        length = stream.duration
        for round_ in range(math.ceil(seconds * stream.average_rate / stream.frames)):
            source.seek(0)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.pts, packet.dts = packet.pts + round_ * length, packet.dts + round_ * length
                    packet.stream = copy
                    output.mux(packet)
    return target


def watch(seconds: float, fps: int, folder: Path, more: list[str]) -> dict[str, object]:
    """Run the program on a clip of so many seconds; its memory (MB) by time (s), and its summary."""
    video = repeated(make_clip(folder / "part.mp4", min(seconds, PERIOD_S), fps), folder / "clip.mp4", seconds)
    audio = make_speech(folder / "speech.wav", ROOT / "examples" / "speech.wav", seconds)
    command = [sys.executable, str(ROOT / "app.py"), "--mode", "cli", "--video", str(video), "--audio", str(audio)]
    command.append("--overwrite")
    started = time.monotonic()
    times, sizes = [], []
    with (folder / "log.txt").open("w+") as log:
        process = subprocess.Popen([*command, "--output", str(folder / "out.mp4"), *more], stdout=log, stderr=log)
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                sizes.append(watched.memory_info().rss / 1e6)
                times.append(time.monotonic() - started)
            except psutil.Error:
                break
            time.sleep(INTERVAL_S)
        log.seek(0)
        text = log.read()
    if process.wait():
        raise RuntimeError(text)
    return {
        "seconds": seconds,
        "fps": fps,
        "peak_mb": round(max(sizes)),
        "duration_s": round(times[-1], 1),
        "summary": text.strip().splitlines()[-1].strip(),
        "times_s": [round(value, 2) for value in times],
        "memory_mb": [round(value) for value in sizes],
    }


def plot(results: list[dict[str, object]], path: Path) -> None:
    """Memory of all runs over their time; the axis of time is logarithmic, so that a short run is seen too."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=110)
    for result in results:
        label = f"{result['seconds']:g} s at {result['fps']} frames/s, at most {result['peak_mb']} MB"
        axes.plot(result["times_s"], result["memory_mb"], label=label)
    axes.axhline(2000, color="grey", linestyle=":", label="2 GB")
    axes.set(xlabel="time since the start, s", ylabel="resident memory, MB", xscale="log", ylim=(0, 2200))
    axes.legend(loc="lower right")
    figure.tight_layout()
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> int:
    """Watch all runs, print a line for each, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="*", default=[10.0, 60.0], help="lengths of the videos")
    parser.add_argument("--fps", type=int, default=25, help="their frames per second (default: %(default)s)")
    parser.add_argument("--plot", type=Path, help="write the plot into this file")
    parser.add_argument("--json", type=Path, help="write all figures into this file")
    parser.add_argument("--add", type=Path, help="plot the figures of this file, written with --json, as well")
    parser.add_argument("more", nargs="*", help="further options of the program, after --")
    args = parser.parse_args(arguments)
    results = json.loads(args.add.read_text()) if args.add else []
    for seconds in args.seconds:
        with tempfile.TemporaryDirectory() as folder:
            results.append(watch(seconds, args.fps, Path(folder), args.more))
        print(f"{seconds:g} s: at most {results[-1]['peak_mb']} MB; {results[-1]['summary']}", flush=True)
    if args.plot:
        plot(results, args.plot)
    if args.json:
        args.json.write_text(json.dumps(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
