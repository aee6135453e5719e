"""A live avatar from files: frames and sound are handed over at the pace of a camera and a microphone.

    python examples/live.py --video talk.mp4 --audio speech.wav
    python examples/live.py --video examples/portrait.jpg --audio examples/speech.wav --seconds 6 --output live.mp4

Prints how long frames took from the moment they were handed over to the moment they came back: the look-ahead that is
part of it (see LipSyncPipeline.stream), and what the machine adds. A machine that is too slow falls further and further
behind; that too is printed.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, this file sees examples/ only

from audio_processor import SAMPLE_RATE, load_audio  # noqa: E402
from pipeline import LipSyncPipeline, LiveFrame  # noqa: E402
from pipeline.options import Options  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.helpers import InputError, resolve_device  # noqa: E402
from video_processor import VideoReader, fitted_frames  # noqa: E402

CHUNK_S = 0.02  # as microphones deliver


class Pace:
    """Hands things over when their time has come, and remembers when that was."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.given: dict[float, float] = {}

    def frames(self, frames: Iterator[LiveFrame]) -> Iterator[LiveFrame]:
        """Each frame at its time."""
        for frame in frames:
            self._wait(frame.time)
            self.given[frame.time] = self.start + frame.time
            yield frame

    def sound(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Each chunk when its last sample has been heard."""
        size = round(CHUNK_S * SAMPLE_RATE)
        for first in range(0, len(samples), size):
            self._wait((first + size) / SAMPLE_RATE)
            yield samples[first : first + size]
        for number in itertools.count(1):
            self._wait(len(samples) / SAMPLE_RATE + number * CHUNK_S)
            yield np.zeros(size, np.float32)

    def _wait(self, moment: float) -> None:
        time.sleep(max(0.0, self.start + moment - time.perf_counter()))


def latencies(frames: Iterator[LiveFrame], pace: Pace, writer: Writer | None) -> list[float]:
    """Seconds from handing over to coming back, of all frames."""
    found = []
    for frame in frames:
        found.append(time.perf_counter() - pace.given.pop(frame.time))
        if writer is not None:
            writer.write(frame.image)
    return found


class Writer:
    """A video without sound of the frames as they come back; encoding must not hold them up.

    Args:
        path: .mp4.
        fps: frames per second.
        size: width and height, px; an odd row or column is left out.
    """

    def __init__(self, path: Path, fps: Fraction, size: tuple[int, int]):
        self._container = av.open(str(path), "w")
        self._stream = self._container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "crf": "18"})
        self._stream.pix_fmt = "yuv420p"
        self._stream.width, self._stream.height = (side // 2 * 2 for side in size)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def write(self, image: np.ndarray) -> None:
        image = image[: self._stream.height, : self._stream.width]
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")))


def report(found: list[float], look_ahead: float, fps: float) -> str:
    """Percentiles, and whether the machine keeps up."""
    p50, p95, p99 = np.percentile(found, [50, 95, 99])
    tenth = max(1, len(found) // 10)
    settled = min(round(2 * fps), len(found) - tenth)  # before, the person was got to know and frames passed at once
    drift = float(np.median(found[-tenth:]) - np.median(found[settled : settled + tenth]))
    pace = "keeps up" if drift < 0.2 else f"falls behind: frames came {drift:.1f} s later at the end than at the start"
    return (
        f"{len(found)} frames at {fps:g} per second; look-ahead at most {1000 * look_ahead:.0f} ms\n"
        f"latency p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms, p99 {1000 * p99:.0f} ms\n"
        f"the machine {pace}"
    )


def run(arguments: argparse.Namespace) -> str:
    """Stream the files once; returns the report."""
    samples = load_audio(arguments.audio)
    seconds = min(arguments.seconds or len(samples) / SAMPLE_RATE, len(samples) / SAMPLE_RATE)
    with VideoReader(arguments.video) as reader:
        fps, size = reader.info.fps, (reader.info.width, reader.info.height)
    lip_sync = LipSyncPipeline.load(load_config(arguments.config, arguments.set), resolve_device(arguments.device))
    frames = (LiveFrame(frame.image, frame.time) for frame in fitted_frames(arguments.video, seconds, rest="cut"))
    ahead = list(itertools.islice(frames, 2 * round(fps)))
    for _ in lip_sync.stream(ahead, samples, Options()):  # what loads at the first use is not what is measured
        pass
    pace = Pace()
    with ExitStack() as stack:
        writer = stack.enter_context(Writer(arguments.output, fps, size)) if arguments.output else None
        source = pace.frames(itertools.chain(ahead, frames))
        found = latencies(lip_sync.stream(source, pace.sound(samples), Options()), pace, writer)
    return report(found, lip_sync.live_look_ahead(float(fps)), float(fps))


def main(arguments: list[str] | None = None) -> int:
    """Stream, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, required=True, help="video or portrait that stands for the camera")
    parser.add_argument("--audio", type=Path, required=True, help="speech that stands for the microphone")
    parser.add_argument("--seconds", type=float, help="stop after so many (default: at the end of the speech)")
    parser.add_argument("--output", type=Path, help="also write the frames into this .mp4 (without sound)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, such as live.hop=8")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    parser.add_argument("--config", type=Path, default=ROOT / "model_config.yaml", help="settings file")
    logging.getLogger("diffusers").setLevel(logging.ERROR)  # its hints are for developers
    try:
        print(run(parser.parse_args(arguments)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
