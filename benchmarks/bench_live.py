"""How live a host is on this machine: latencies, frames held, memory, and CPU by part.

    python benchmarks/bench_live.py --host hosts/anna --minutes 10

The host speaks sentences one after another, with pauses in which it listens. Latency counts from the call of `say` (or
the first chunk of sound, which comes at the pace of a microphone) to the moment at which the first loud sample is due,
as the doors hand it out; a browser's own buffer comes on top. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from audio_processor import load_audio  # noqa: E402
from language_processor import LanguageProcessor, SpokenText  # noqa: E402
from pipeline import LipSyncPipeline, Options  # noqa: E402
from pipeline.host import Host  # noqa: E402
from pipeline.session import Moment, Session  # noqa: E402
from pipeline.studio import Studio, StudioSettings  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.helpers import InputError, available_cores, resolve_device  # noqa: E402

SENTENCES = (
    ("en", "Hello, and welcome to our shop. What can I show you today?"),
    ("zh", "你好，欢迎光临。今天想看点什么？"),
    ("en", "This coat is new, and it is warm. Would you like to try it on?"),
    ("zh", "这件外套是新款，又轻又暖。要不要试一试？"),
)
LOUD = 300  # of 32767
PAUSE_S = 1.5
CHUNK_S = 0.02


class Watcher:
    """A listener that takes notes and throws the rest away, as somebody who watches."""

    wants_packets, wants_pictures = True, False

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.pictures = self.moments = self.bytes = 0
        self.first_loud: float | None = None
        self.is_idle = False
        self.late = 0
        self.strides: dict[int, int] = defaultdict(int)

    def put(self, moment: Moment) -> None:
        with self.changed:
            self.moments += 1
            self.pictures += moment.picture is not None
            self.bytes += len(moment.packet.data) if moment.packet else 0
            if self.first_loud is None and np.abs(moment.sound.astype(int)).max() > LOUD:
                place = int(np.argmax(np.abs(moment.sound.astype(int)) > LOUD))
                self.first_loud = moment.due + place / 48000
            for event in moment.events:
                self.is_idle = self.is_idle or event["event"] == "idle"
                if event["event"] == "lag":
                    self.late = event["late"]
            self.changed.notify_all()

    def begin(self) -> None:
        """Wait for the next sound."""
        with self.changed:
            self.first_loud, self.is_idle = None, False

    def until_idle(self) -> float:
        """When the first loud sample was due; returns when nothing is said any more."""
        with self.changed:
            self.changed.wait_for(lambda: self.is_idle, 120)
            if self.first_loud is None:
                raise RuntimeError("nothing was heard")
            return self.first_loud


def by_texts(studio: Studio, session: Session, watcher: Watcher, until: float) -> list[float]:
    """Say sentences until a moment of `time.monotonic`; latencies in seconds."""
    found, number = [], 0
    while time.monotonic() < until:
        language, text = SENTENCES[number % len(SENTENCES)]
        watcher.begin()
        started = time.monotonic()
        studio.say(session, SpokenText(text, language))
        found.append(watcher.until_idle() - started)
        watcher.strides[session.stride] += 1
        time.sleep(PAUSE_S)
        number += 1
    return found


def by_chunks(studio: Studio, session: Session, watcher: Watcher, samples: np.ndarray, times: int) -> list[float]:
    """Stream a sound at the pace of a microphone; latencies in seconds."""
    samples, found, size = samples[np.argmax(np.abs(samples) > 0.02) :], [], round(CHUNK_S * 16000)
    for _ in range(times):
        watcher.begin()
        sound = studio.stream(session, 16000)
        started = time.monotonic()
        for index, first in enumerate(range(0, len(samples), size), 1):
            time.sleep(max(0.0, started + index * CHUNK_S - time.monotonic()))
            studio.feed(sound, samples[first : first + size])
        sound.end()
        found.append(watcher.until_idle() - started - CHUNK_S)
        time.sleep(PAUSE_S)
    return found


def cpu_by_thread() -> dict[str, float]:
    """Seconds of CPU of all threads of this process, by name."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    seconds: dict[str, float] = defaultdict(float)
    for thread in psutil.Process().threads():
        name = names.get(thread.id, "libraries")
        seconds[name if name.startswith("live") else "libraries"] += thread.user_time + thread.system_time
    return seconds


def percentiles(values: list[float]) -> str:
    """p50, p95 and the greatest."""
    p50, p95 = np.percentile(values, [50, 95])
    return f"{p50:.2f} | {p95:.2f} | {max(values):.2f}"


def run(arguments: argparse.Namespace) -> str:
    """Measure once; returns the report."""
    config = load_config(ROOT / "model_config.yaml")
    weights = ROOT / config.inference.weights_dir
    language = LanguageProcessor(weights, weights / config.size / "phonemes", own=config.language.engines)
    pipeline = LipSyncPipeline.load(config, resolve_device(arguments.device), language)
    host = Host.open(arguments.host)
    studio = Studio(pipeline.engine, language, StudioSettings(config.live.sound_ahead_s, 20, 60), Options())
    studio.warm_up(host)
    session, watcher = studio.open(host), Watcher()
    session.attach(watcher)
    load = os.getloadavg()[0]
    memory = [psutil.Process().memory_info().rss / 2**20]
    before, started = cpu_by_thread(), time.monotonic()
    texts = by_texts(studio, session, watcher, started + 60 * arguments.minutes)
    chunks = by_chunks(studio, session, watcher, load_audio(ROOT / "examples" / "speech.wav"), arguments.streams)
    seconds = time.monotonic() - started
    used = {name: value - before.get(name, 0.0) for name, value in cpu_by_thread().items()}
    memory.append(psutil.Process().memory_info().rss / 2**20)
    studio.shut()
    return report(host, watcher, texts, chunks, seconds, used, memory, (load, os.getloadavg()[0]))


def report(
    host: Host,
    watcher: Watcher,
    texts: list[float],
    chunks: list[float],
    seconds: float,
    used: dict[str, float],
    memory: list[float],
    load: tuple[float, float],
) -> str:
    """The table."""
    card = host.card
    lines = [
        f"{platform.machine()}, {available_cores()} cores, load {load[0]:.1f} before and {load[1]:.1f} after; "
        f"host {card.width}x{card.height} at {float(host.fps):g} frames per second; {seconds / 60:.1f} minutes",
        "",
        "| | p50 | p95 | most |",
        "| --- | --- | --- | --- |",
        f"| `say` to the first loud sample, s ({len(texts)} times) | {percentiles(texts)} |",
        f"| first chunk to the first loud sample, s ({len(chunks)} times) | {percentiles(chunks)} |",
        "",
        f"- Pictures: {watcher.pictures / seconds:.2f} per second of {watcher.moments / seconds:.2f} moments; "
        f"{watcher.late} mouths were late; sentences drawn with every n-th frame: {dict(watcher.strides)}",
        f"- H.264: {8 * watcher.bytes / seconds / 1e6:.2f} Mbit/s",
        f"- Memory: {memory[0]:.0f} MB at the start, {memory[1]:.0f} MB at the end",
        "- CPU, ms for each moment: "
        + ", ".join(f"{name} {1000 * value / watcher.moments:.1f}" for name, value in sorted(used.items())),
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, required=True, help="folder of a prepared host")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to speak (default: %(default)g)")
    parser.add_argument("--streams", type=int, default=10, help="how often to stream a sound (default: %(default)d)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    try:
        print(run(parser.parse_args(arguments)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
