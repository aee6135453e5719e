"""How live a host is on this machine: latencies and their parts, frames held, memory, and CPU by part.

    python benchmarks/bench_live.py --host hosts/anna --minutes 10
    python benchmarks/bench_live.py --host hosts/anna --minutes 60 --pause 20    # memory: idle for the most part

The host speaks sentences one after another, with pauses in which it listens, then says a sound that arrives at the
pace of a microphone, and is interrupted. Latency counts from the call of `say` (or the first chunk of sound) to the
moment at which the first loud sample is due, as the doors hand it out; a browser's own buffer comes on top. Prints
tables in Markdown. `bench_lips.py` measures whether lips and sound are in step where they arrive.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from audio_processor import load_audio  # noqa: E402
from language_processor import LanguageProcessor, SpokenText  # noqa: E402
from pipeline import LipSyncPipeline, Options  # noqa: E402
from pipeline.host import Host  # noqa: E402
from pipeline.live_mouths import Mouths  # noqa: E402
from pipeline.session import Moment, Session  # noqa: E402
from pipeline.studio import Studio, StudioSettings  # noqa: E402
from utils.config import load_config  # noqa: E402
from utils.helpers import InputError, available_cores, resolve_device  # noqa: E402
from video_processor import LiveEncoder, LoopReader  # noqa: E402

SENTENCES = (
    ("en", "Hello, and welcome to our shop. What can I show you today?"),
    ("zh", "你好，欢迎光临。今天想看点什么？"),
    ("en", "This coat is new, and it is warm. Would you like to try it on?"),
    ("zh", "这件外套是新款，又轻又暖。要不要试一试？"),
)
LONG = "I could go on like this for a very long time, for there is so much to be said about our coats and our shoes."
LOUD = 300  # of 32767
CHUNK_S = 0.02
PARTS = ("sound", "mouths", "clock", "silence")
"""Of a latency: the sound is made, or waited for; the first mouths are drawn; the next frame's turn comes; the sound
itself begins with silence."""


@dataclass
class Latency:
    """One beginning, in seconds by `time.monotonic`."""

    asked: float
    drawing: float = 0.0
    drawn: float = 0.0
    begun: float = 0.0
    loud: float = 0.0

    def parts(self) -> list[float]:
        """Seconds of all, and of each of `PARTS`."""
        places = (self.asked, self.drawing, self.drawn, self.begun, self.loud)
        return [self.loud - self.asked, *np.diff(places)]


class Watcher:
    """A listener that takes notes and throws the rest away, as somebody who watches."""

    wants_packets, wants_pictures = True, False

    def __init__(self, session: Session) -> None:
        self.changed = threading.Condition()
        self.moments = self.bytes = 0
        self.shown: list[bool] = []  # of each moment, whether it had a picture
        self.latency = Latency(0.0)
        self.last_loud = 0.0
        self.is_idle = False
        drew = session.drew

        def note(seconds: float, frames: int, sharing: int, was_first: bool) -> None:
            if was_first:
                now = time.monotonic()
                with self.changed:
                    latency = self.latency
                    if not latency.drawn:
                        latency.drawing, latency.drawn = now - seconds, now
            drew(seconds, frames, sharing, was_first)

        session.drew = note
        session.attach(self)

    def put(self, moment: Moment) -> None:
        loud = np.flatnonzero(np.abs(moment.sound.astype(int)) > LOUD) / 48000
        with self.changed:
            latency = self.latency
            self.moments += 1
            self.shown.append(moment.picture is not None)
            self.bytes += len(moment.packet.data) if moment.packet else 0
            for event in moment.events:
                if event["event"] == "speaking" and not latency.begun:
                    latency.begun = moment.due
                self.is_idle = self.is_idle or event["event"] == "idle"
            if len(loud):
                latency.loud = latency.loud or moment.due + loud[0]
                self.last_loud = moment.due + loud[-1]
            self.changed.notify_all()

    def begin(self) -> Latency:
        """Wait for the next sound, which is asked for now."""
        with self.changed:
            self.is_idle, self.latency = False, Latency(time.monotonic())
            return self.latency

    def until(self, true: Callable[[], Any]) -> None:
        """Wait until something is true of what came."""
        with self.changed:
            if not self.changed.wait_for(true, 1200):
                raise RuntimeError("the host does not answer")


@dataclass
class Speaker:
    """Lets a session speak, and takes notes."""

    studio: Studio
    session: Session
    watcher: Watcher
    pause_s: float
    late: list[int] = field(default_factory=list)
    strides: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def texts(self, until: float) -> Iterator[Latency]:
        """Say sentences until a moment of `time.monotonic`."""
        number = 0
        while time.monotonic() < until:
            language, text = SENTENCES[number % len(SENTENCES)]
            latency = self.watcher.begin()
            self.studio.say(self.session, SpokenText(text, language))
            self._finish()
            yield latency
            number += 1

    def chunks(self, samples: np.ndarray, times: int) -> Iterator[Latency]:
        """Say a sound that comes at the pace of a microphone; latencies count from its first chunk."""
        samples, size = samples[np.argmax(np.abs(samples) > 0.02) :], round(CHUNK_S * 16000)
        for _ in range(times):
            started = time.monotonic()
            latency = sound = None
            for index, first in enumerate(range(0, len(samples), size), 1):
                time.sleep(max(0.0, started + index * CHUNK_S - time.monotonic()))
                latency = latency or self.watcher.begin()
                sound = sound or self.studio.stream(self.session, 16000)
                self.studio.feed(sound, samples[first : first + size])
            sound.end()
            self._finish()
            yield latency

    def interruptions(self, times: int) -> Iterator[float]:
        """Interrupt a long sentence; seconds until the last loud sample was due."""
        for number in range(times):
            latency = self.watcher.begin()
            self.studio.say(self.session, SpokenText(LONG, "en"))
            self.watcher.until(lambda latency=latency: latency.loud)
            time.sleep(0.5 + 0.037 * number)
            asked = time.monotonic()
            self.session.interrupt()
            self._finish()
            yield self.watcher.last_loud - asked

    def _finish(self) -> None:
        before = self.session.late
        self.watcher.until(lambda: self.watcher.is_idle)
        self.late.append(self.session.late - before)
        self.strides[self.session.stride] += 1
        time.sleep(self.pause_s)


class Memory(threading.Thread):
    """Looks at the memory of this process every few seconds, MB."""

    def __init__(self, every_s: float) -> None:
        super().__init__(daemon=True)
        self.sizes: list[float] = []
        self._every_s, self._ended = every_s, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(self._every_s if self.sizes else 0):
            self.sizes.append(psutil.Process().memory_info().rss / 2**20)

    def stop(self) -> str:
        """What was seen: the mean of each tenth of the time."""
        self._ended.set()
        self.join()
        return ", ".join(f"{np.mean(tenth):.0f}" for tenth in np.array_split(self.sizes, min(10, len(self.sizes))))


def cpu_by_thread() -> dict[str, float]:
    """Seconds of CPU of all threads of this process, by name."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    seconds: dict[str, float] = defaultdict(float)
    for thread in psutil.Process().threads():
        name = names.get(thread.id, "libraries")
        seconds[name if name.startswith("live") else "libraries"] += thread.user_time + thread.system_time
    return seconds


@contextmanager
def cpu_of_parts() -> Iterator[dict[str, float]]:
    """Seconds of CPU of the calling threads in each part, and how often it was done."""
    parts = {"decode": (LoopReader, "__next__"), "encode": (LiveEncoder, "encode"), "paste": (Host, "patch")}
    parts |= {"draw": (Mouths, "draw")}
    spent: dict[str, float] = defaultdict(float)
    originals = {name: getattr(*where) for name, where in parts.items()}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def measured(*given: Any, **named: Any) -> Any:
            started = time.thread_time()
            try:
                return call(*given, **named)
            finally:
                spent[name] += time.thread_time() - started

        return measured

    for name, (kind, method) in parts.items():
        setattr(kind, method, timed(name, originals[name]))
    try:
        yield spent
    finally:
        for name, (kind, method) in parts.items():
            setattr(kind, method, originals[name])


def percentiles(values: list[float]) -> str:
    """p50, p95 and the greatest."""
    p50, p95 = np.percentile(values, [50, 95])
    return f"{p50:.2f} | {p95:.2f} | {max(values):.2f}"


def latency_rows(name: str, found: list[Latency]) -> list[str]:
    """Rows of the table: the whole, and the median of each part."""
    table = np.array([latency.parts() for latency in found])
    medians = ", ".join(f"{part} {value:.2f}" for part, value in zip(PARTS, np.median(table[:, 1:], 0), strict=True))
    return [f"| {name} ({len(found)} times), s | {percentiles(list(table[:, 0]))} | {medians} |"]


def held(shown: list[bool], fps: float) -> str:
    """How many pictures came in a second: over all, and in the worst ten seconds."""
    span = min(len(shown), round(10 * fps))
    windows = np.convolve(np.array(shown, float), np.ones(span), "valid")
    return f"{fps * np.mean(shown):.2f} per second, {fps * windows.min() / span:.2f} in the worst ten seconds"


def run(arguments: argparse.Namespace) -> str:
    """Measure once; returns the report."""
    config = load_config(ROOT / "model_config.yaml")
    weights = ROOT / config.inference.weights_dir
    language = LanguageProcessor(weights, weights / config.size / "phonemes", own=config.language.engines)
    pipeline = LipSyncPipeline.load(config, resolve_device(arguments.device), language)
    host = Host.open(arguments.host)
    studio = Studio(pipeline.engine, language, StudioSettings(config.live.sound_ahead_s, 20, 60), Options())
    studio.warm_up(host)
    session = studio.open(host)
    watcher = Watcher(session)
    speaker = Speaker(studio, session, watcher, arguments.pause)
    load, memory = os.getloadavg()[0], Memory(5.0)
    memory.start()
    before, started = cpu_by_thread(), time.monotonic()
    with cpu_of_parts() as parts:
        texts = list(speaker.texts(started + 60 * arguments.minutes))
        speech = load_audio(ROOT / "examples" / "speech.wav")
        chunks = list(speaker.chunks(speech, arguments.streams))
        stops = list(speaker.interruptions(arguments.streams))
    seconds, after = time.monotonic() - started, cpu_by_thread()
    used = {name: value - before.get(name, 0.0) for name, value in after.items()}
    studio.shut()
    card = host.card
    head = (
        f"{platform.machine()}, {available_cores()} cores, load {load:.1f} before and {os.getloadavg()[0]:.1f} after; "
        f"host {card.width}x{card.height} at {float(host.fps):g} frames per second; {seconds / 60:.1f} minutes"
    )
    rows = [
        *latency_rows("`say` to the first loud sample", texts),
        *latency_rows("first chunk to the first loud sample", chunks),
        f"| interruption to silence ({len(stops)} times), s | {percentiles(stops)} | |",
    ]
    table = ["| | p50 | p95 | most | parts, medians |", "| --- | --- | --- | --- | --- |", *rows]
    return "\n".join([head, "", *table, *notes(speaker, float(host.fps), seconds, used | parts, memory.stop())])


def notes(speaker: Speaker, fps: float, seconds: float, used: dict[str, float], memory: str) -> list[str]:
    """What else is to be said."""
    watcher = speaker.watcher
    shares = ", ".join(f"{name} {1000 * value / watcher.moments:.1f}" for name, value in sorted(used.items()))
    return [
        "",
        f"- Pictures: {held(watcher.shown, fps)}; {sum(speaker.late)} mouths were late; "
        f"sounds drawn with every n-th frame: {dict(speaker.strides)}",
        f"- Moments: {watcher.moments / seconds:.2f} per second, {watcher.moments} in all",
        f"- H.264: {8 * watcher.bytes / seconds / 1e6:.2f} Mbit/s",
        f"- Memory, MB, mean of each tenth of the time: {memory}",
        f"- CPU, ms for each moment, by thread and by part: {shares}",
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the report, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", type=Path, required=True, help="folder of a prepared host")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to speak (default: %(default)g)")
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between texts (default: %(default)g)")
    parser.add_argument("--streams", type=int, default=10, help="how often to stream a sound, and to interrupt one")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    try:
        print(run(parser.parse_args(arguments)))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
