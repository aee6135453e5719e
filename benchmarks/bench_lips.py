"""Whether lips and sound are in step where they arrive: WebSocket, WebRTC, and Chromium.

    python benchmarks/bench_lips.py

A real server is started with a real host, but its engine does not draw a mouth: it draws white where the sound of the
frame is loud, and black where it is not. So what a receiver sees and hears at the same moment can be compared exactly,
and what is measured is the way from the session to the receiver, without the habits of a network. Bursts of sound begin
at frames; the offset is when white comes minus when the burst is heard, in milliseconds: above 0 the lips are late.
Prints a table in Markdown. Chromium is measured where it is installed (with its driver and selenium).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import websocket
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engines.base import Engine, Facts, Painter, Style  # noqa: E402
from faces.mouth_windows import MouthFrame  # noqa: E402
from faces.window import GENERATED, MOUTH_WINDOW  # noqa: E402
from models.phonemes import Phoneme  # noqa: E402
from utils.config import Config  # noqa: E402
from utils.helpers import resolve_device  # noqa: E402

RATE, FPS = 16000, 25
BURST_S, LEVEL = 0.24, 0.4
LOUD, SMALL = 0.1, 48  # of 1; side of what is kept of a picture, px


class Flash(Engine):
    """White while the sound is loud, else black."""

    facts = Facts(
        name="flash",
        licence="that of this program",
        needs="nothing",
        geometry=MOUTH_WINDOW,
        region=GENERATED,
        window=8,
        overlap=1,
        fast_overlap=1,
        matched=False,
    )

    @classmethod
    def load(cls, config: Config, device: Any, weights: Path) -> Flash:
        engine = cls()
        engine.device = resolve_device("cpu")
        return engine

    def hear(self, samples: np.ndarray, phonemes: Sequence[Phoneme] = ()) -> Callable[[int], np.ndarray]:
        return lambda count: samples[:count]

    def hear_live(self, chunks: Iterable[np.ndarray], ahead_s: float) -> Callable[[int], np.ndarray]:
        source, heard = iter(chunks), [np.zeros(0, np.float32)]

        def first(count: int) -> np.ndarray:
            while len(heard[0]) < count:
                piece = next(source, None)
                heard[0] = np.concatenate([heard[0], np.zeros(count, np.float32) if piece is None else piece])
            return heard[0][:count]

        return first

    def meet(self, frames: Sequence[MouthFrame]) -> int:
        return 1

    def pack(self, person: int) -> dict[str, np.ndarray]:
        return {"nothing": np.zeros(1)}

    def unpack(self, packed: Mapping[str, np.ndarray]) -> int:
        return 1

    def painter(self, person: int, speech: Callable[[int], np.ndarray], style: Style) -> Painter:
        def paint(frames: Sequence[MouthFrame]) -> np.ndarray:
            starts = [round(frame.time * RATE) for frame in frames]
            levels = [np.abs(speech(start + RATE // FPS)[start:]).max(initial=0) for start in starts]
            white = np.array([255.0 * (level > LOUD) for level in levels], np.float32)
            return np.broadcast_to(white[:, None, None, None], (len(frames), *frames[0].window.shape))

        return paint

    def opacity(self, frame: MouthFrame) -> np.ndarray:
        x0, y0, x1, y1 = self.facts.region
        opaque = np.zeros(frame.window.shape[:2], np.float32)
        opaque[y0:y1, x0:x1] = 1.0
        return opaque


@dataclass
class Received:
    """What came to a receiver: times in seconds by one clock.

    Attributes:
        pictures: when each is shown, and what it shows, (48, 48).
        sounds: when each piece begins, its rate, and its samples in [-1, 1].
    """

    pictures: list[tuple[float, np.ndarray]] = field(default_factory=list)
    sounds: list[tuple[float, int, np.ndarray]] = field(default_factory=list)

    def see(self, time_s: float, grey: np.ndarray) -> None:
        self.pictures.append((time_s, cv2.resize(grey, (SMALL, SMALL), interpolation=cv2.INTER_AREA).astype(float)))

    def offsets(self) -> list[float]:
        """Of each burst: when white came minus when it was heard, ms."""
        shown = np.stack([picture for _, picture in self.pictures])
        place = np.unravel_index(shown.std(0).argmax(), shown.shape[1:])
        signal = shown[:, place[0], place[1]]
        white = signal > (signal.min() + signal.max()) / 2
        seen = [self.pictures[at + 1][0] for at in np.flatnonzero(white[1:] & ~white[:-1])]
        heard, quiet_since = [], -1.0
        for start, rate, samples in self.sounds:
            for place_of in np.flatnonzero(np.abs(samples) > LOUD) / rate:
                if start + place_of - quiet_since > 0.1:
                    heard.append(start + place_of)
                quiet_since = start + place_of
        nearest = [min(seen, key=lambda t, at=at: abs(t - at)) - at for at in heard]
        return [1000 * offset for offset in nearest if abs(offset) < 0.3]


def bursts(count: int) -> np.ndarray:
    """Samples of bursts at 16 kHz that begin at frames, with pauses of many lengths."""
    random, pieces = np.random.default_rng(0), [np.zeros(RATE)]
    for _ in range(count):
        tone = LEVEL * np.sign(np.sin(2 * np.pi * 220 * (np.arange(round(BURST_S * RATE)) + 0.5) / RATE))
        pieces += [tone, np.zeros(RATE // FPS * random.integers(9, 20))]
    return np.concatenate(pieces)


class Server:
    """`--mode live` with a host of the engine above.

    Args:
        folder: for configuration, host and log.
    """

    def __init__(self, folder: Path) -> None:
        values = yaml.safe_load((ROOT / "model_config.yaml").read_text(encoding="utf-8"))
        values["inference"]["engine"] = "bench_lips:Flash"
        values["hosts"]["dir"], values["sessions"]["most"] = str(folder / "hosts"), 3
        values["sessions"]["linger_s"] = 5
        self._config = folder / "config.yaml"
        self._config.write_text(yaml.safe_dump(values), encoding="utf-8")
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "app.py"), "--config", str(self._config), *arguments]
        paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
        with (self._folder / "log").open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make the host, then serve until the block ends."""
        picture = str(ROOT / "examples" / "smile.png")
        making = ("--mode", "cli", "--make-host", "lips", "--video", picture, "--still")
        if self._start(*making).wait():
            raise RuntimeError((self._folder / "log").read_text(encoding="utf-8"))
        data = str(self._folder / "data")
        server = self._start("--mode", "live", "--port", self.address.rpartition(":")[2], "--data-dir", data)
        try:
            while True:
                with suppress(OSError):
                    urllib.request.urlopen(f"http://{self.address}/health", timeout=1)
                    break
                if server.poll() is not None:
                    raise RuntimeError((self._folder / "log").read_text(encoding="utf-8"))
                time.sleep(0.2)
            yield
        finally:
            server.terminate()
            server.wait()

    def speak(self, session: str, samples: np.ndarray) -> None:
        """Say a sound in a session, and return when it is over."""
        live = websocket.create_connection(f"ws://{self.address}/live/socket?video=none&session={session}")
        say(live, samples)
        while json.loads(live.recv())["event"] != "idle":
            pass
        live.close()


def say(live: websocket.WebSocket, samples: np.ndarray) -> None:
    """Send a whole sound."""
    live.send(json.dumps({"type": "audio", "rate": RATE, "format": "s16le"}))
    data = np.rint(samples * 32767).astype("<i2")
    for first in range(0, len(data), RATE // 2):
        live.send_binary(data[first : first + RATE // 2].tobytes())
    live.send(json.dumps({"type": "audio_end"}))


def by_websocket(server: Server, samples: np.ndarray) -> Received:
    """The times of the MP4 that comes."""
    live = websocket.create_connection(f"ws://{server.address}/live/socket?video=mp4")
    say(live, samples)
    data = bytearray()
    while not (isinstance(message := live.recv(), str) and json.loads(message)["event"] == "idle"):
        data += message if isinstance(message, bytes) else b""
    live.close()
    received = Received()
    with av.open(io.BytesIO(bytes(data))) as container:
        for frame in container.decode(container.streams.video[0], container.streams.audio[0]):
            if isinstance(frame, av.VideoFrame):
                received.see(frame.time, frame.to_ndarray(format="gray"))
            else:
                received.sounds.append((frame.time, frame.sample_rate, frame.to_ndarray()[0]))
    return received


RATES = {"video": 90000, "audio": 48000}


class Clocks:
    """What the sender says of its clock, and when packets arrive; of every stream of aiortc in this process.

    Attributes:
        zero: of each kind, what the sender's clock shows at time stamp 0, seconds; one value for each report.
        arrivals: of each kind, when packets of a time stamp came.
        origin: of each kind, the time stamp from which aiortc counts its frames.
    """

    def __init__(self) -> None:
        from aiortc import rtcrtpreceiver
        from aiortc.rtp import RtcpSrPacket

        self.zero: dict[str, list[float]] = defaultdict(list)
        self.arrivals: dict[str, dict[int, float]] = defaultdict(dict)
        self.origin: dict[str, int] = {}
        kind = rtcrtpreceiver.RTCRtpReceiver
        take_report, take_packet = kind._handle_rtcp_packet, kind._handle_rtp_packet

        async def report(receiver: Any, packet: Any) -> None:
            if isinstance(packet, RtcpSrPacket) and packet.sender_info.rtp_timestamp:
                name, info = receiver._RTCRtpReceiver__kind, packet.sender_info
                self.zero[name].append(info.ntp_timestamp / 2**32 - info.rtp_timestamp / RATES[name])
            await take_report(receiver, packet)

        async def arrived(receiver: Any, packet: Any, arrival_time_ms: int) -> None:
            name = receiver._RTCRtpReceiver__kind
            self.arrivals[name].setdefault(packet.timestamp, time.monotonic())
            await take_packet(receiver, packet, arrival_time_ms)
            self.origin[name] = receiver._RTCRtpReceiver__timestamp_mapper._origin

        kind._handle_rtcp_packet, kind._handle_rtp_packet = report, arrived


async def by_webrtc(server: Server, samples: np.ndarray) -> tuple[Received, Received]:
    """By the sender's clock, and by when packets arrive."""
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import MediaStreamError

    clocks, peer = Clocks(), RTCPeerConnection()
    frames: list[tuple[str, Any]] = []

    async def take(track: Any) -> None:
        with suppress(MediaStreamError):
            while True:
                frames.append((track.kind, await track.recv()))

    tasks: list[asyncio.Task[None]] = []
    peer.on("track", lambda track: tasks.append(asyncio.create_task(take(track))))
    for kind in RATES:
        peer.addTransceiver(kind, direction="recvonly")
    peer.createDataChannel("live")
    await peer.setLocalDescription(await peer.createOffer())
    wish = json.dumps({"sdp": peer.localDescription.sdp, "type": "offer"}).encode()
    request = urllib.request.Request(f"http://{server.address}/live/offer", wish)
    answer = json.loads(await asyncio.to_thread(lambda: urllib.request.urlopen(request).read()))
    await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    await asyncio.to_thread(server.speak, answer["session"], samples)
    await peer.close()
    by_clock, by_arrival = Received(), Received()
    start = min(map(min, clocks.zero.values()))
    for kind, frame in frames:
        stamp = frame.pts + clocks.origin[kind]
        at = stamp / RATES[kind] + float(np.median(clocks.zero[kind])) - start
        for received, moment in ((by_clock, at), (by_arrival, clocks.arrivals[kind].get(stamp))):
            if moment is not None and kind == "video":
                received.see(moment, frame.to_ndarray(format="gray"))
            elif moment is not None:
                received.sounds.append((moment, 48000, frame.to_ndarray()[0, ::2] / 32768))
    return by_clock, by_arrival


_SETTLES_S = 15.0  # in which Chromium brings its buffers of sound and pictures together
_STATE = """
return [session, document.getElementById("video").currentTime, document.getElementById("error").textContent]
"""
_LOOKING = """
window.playout = [];
setInterval(async () => {
  const at = {};
  (await connection.getStats()).forEach((one) => {
    if (one.type === "inbound-rtp") at[one.kind] = one.estimatedPlayoutTimestamp;
  });
  if (at.video && at.audio) window.playout.push(at.audio - at.video);
}, 250);
"""


def by_chromium(server: Server, samples: np.ndarray) -> tuple[list[float], list[float]]:
    """By Chromium's own account of what it shows and plays at the same moment: offsets in ms, every quarter second.

    Those of the first seconds, and those after its buffers have come together.
    """
    from selenium import webdriver
    from selenium.webdriver.common.by import By

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "autoplay-policy=no-user-gesture-required"):
        options.add_argument(f"--{argument}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.implicitly_wait(20)
        driver.get(f"http://{server.address}/")
        driver.find_element(By.ID, "start").click()
        for _ in range(150):
            session, at, error = driver.execute_script(_STATE)
            if session and at > 1:
                break
            time.sleep(0.2)
        else:
            raise RuntimeError(f"the page shows nothing: {session}, {at}, {error}")
        driver.execute_script(_LOOKING)
        seen = []
        for wait in (0.0, _SETTLES_S):
            time.sleep(wait)
            driver.execute_script("window.playout = []")
            server.speak(session, samples)
            seen.append([float(value) for value in driver.execute_script("return window.playout")])
        return seen[0], seen[1]
    finally:
        driver.quit()


def show(name: str, offsets: list[float]) -> None:
    """A row of the table."""
    low, middle, high = np.percentile(offsets, [5, 50, 95])
    print(f"| {name} | {len(offsets)} | {middle:.0f} | {low:.0f} | {high:.0f} |", flush=True)


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursts", type=int, default=40, help="sounds that are compared (default: %(default)d)")
    samples = bursts(parser.parse_args().bursts)
    with tempfile.TemporaryDirectory() as folder:
        server = Server(Path(folder))
        with server.running():
            print(f"load {os.getloadavg()[0]:.1f}\n")
            print("| | n | p50, ms | p5 | p95 |\n| --- | --- | --- | --- | --- |", flush=True)
            show("WebSocket, times of the MP4", by_websocket(server, samples).offsets())
            by_clock, by_arrival = asyncio.run(by_webrtc(server, samples))
            show("WebRTC, by the sender's clock (RTCP reports)", by_clock.offsets())
            show("WebRTC, by when packets arrive", by_arrival.offsets())
            if shutil.which("chromium") and shutil.which("chromedriver"):
                first, settled = by_chromium(server, samples)
                show("Chromium, by its own `estimatedPlayoutTimestamp`, first half minute of a connection", first)
                show(f"the same, {_SETTLES_S:g} s later", settled)
    return 0


if __name__ == "__main__":
    sys.exit(main())
