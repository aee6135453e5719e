"""A host as the avatar of a LiveKit agent: it takes the agent's speech and publishes picture and sound into the room.

    pip install livekit-agents websockets
    python app.py --mode live                                # the hosts
    python examples/livekit_avatar.py --url wss://... --token ... --host anna

Written against `livekit.agents.voice.avatar` (VideoGenerator, AvatarRunner, DataStreamAudioReceiver). The agent sends
its speech with `DataStreamAudioOutput(room, destination_identity="lip-sync-host")`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from live_client import LiveHost, Picture, Sound  # noqa: E402

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import (
        AudioSegmentEnd,
        AvatarOptions,
        AvatarRunner,
        DataStreamAudioReceiver,
        VideoGenerator,
    )
except ImportError as error:
    print(f"error: this example needs livekit-agents (pip install livekit-agents): {error}", file=sys.stderr)
    raise SystemExit(2) from error

RATE = 48000


class HostGenerator(VideoGenerator):
    """Pictures and sound of a host for what an agent says.

    Args:
        host: connected.
    """

    def __init__(self, host: LiveHost):
        self._host = host
        self._is_speaking = False

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """See `VideoGenerator`."""
        if isinstance(frame, AudioSegmentEnd):
            await self._host.end()
        else:
            await self._host.say(bytes(frame.data), frame.sample_rate, frame.num_channels)

    async def clear_buffer(self) -> None:
        """See `VideoGenerator`."""
        await self._host.interrupt()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """See `VideoGenerator`. Silence is left out: the runner counts sound as what was played."""
        async for part in self._host:
            for made in self._made(part):
                yield made

    def _made(self, part: Picture | Sound | dict[str, Any]) -> list[Any]:
        if isinstance(part, Picture):
            return [rtc.VideoFrame(part.width, part.height, rtc.VideoBufferType.I420, part.planes)]
        if isinstance(part, Sound):
            if not self._is_speaking:
                return []
            return [rtc.AudioFrame(part.samples, RATE, 1, len(part.samples) // 2)]
        if part["event"] == "speaking":
            self._is_speaking = True
        elif part["event"] == "idle" and self._is_speaking:
            self._is_speaking = False
            return [AudioSegmentEnd()]
        return []


async def run(arguments: argparse.Namespace) -> None:
    """Join the room and speak until it ends."""
    host = LiveHost(f"{arguments.server}?host={arguments.host}", arguments.key)
    await host.connect()
    room = rtc.Room()
    await room.connect(arguments.url, arguments.token)
    options = AvatarOptions(host.width, host.height, host.fps, audio_sample_rate=RATE, audio_channels=1)
    runner = AvatarRunner(
        room, audio_recv=DataStreamAudioReceiver(room), video_gen=HostGenerator(host), options=options
    )
    try:
        await runner.start()
        await runner.wait_for_complete()
    finally:
        await runner.aclose()
        await host.close()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the LiveKit server")
    parser.add_argument("--token", required=True, help="of the participant lip-sync-host")
    parser.add_argument("--server", default="ws://127.0.0.1:8010/live/socket", help="live server")
    parser.add_argument("--host", default="", help="which host")
    parser.add_argument("--key", help="API key of the live server")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
