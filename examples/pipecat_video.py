"""A host as a video service of a Pipecat pipeline: put it between the speech service and the transport's output.

    pip install pipecat-ai websockets
    python app.py --mode live                                # the hosts

    Pipeline([transport.input(), stt, context.user(), llm, tts, LipSyncVideoService(url), transport.output(), ...])

Written against `pipecat.processors.frame_processor.FrameProcessor` and the frames of `pipecat.frames.frames`. The
transport needs `video_out_enabled=True`, `video_out_is_live=True`, and the host's size (`service.size`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from live_client import LiveHost, Picture, Sound  # noqa: E402

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
except ImportError as error:
    print(f"error: this example needs pipecat-ai (pip install pipecat-ai): {error}", file=sys.stderr)
    raise SystemExit(2) from error

RATE = 48000


class LipSyncVideoService(FrameProcessor):
    """Takes the speech of the pipeline, and hands on the host's pictures with that speech in step.

    Args:
        url: of the live server, such as ws://127.0.0.1:8010/live/socket?host=anna
        key: its API key, where it wants one.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        super().__init__()
        self._host = LiveHost(url, key)
        self._reading = None
        self._is_speaking = False

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the pictures, px."""
        return self._host.width, self._host.height

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """See `FrameProcessor`: speech goes to the host, all else goes on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame):
            await self._host.say(frame.audio, frame.sample_rate, frame.num_channels)
            return
        if isinstance(frame, StartFrame):
            await self._host.connect()
            self._reading = self.create_task(self._hand_on())
        elif isinstance(frame, TTSStoppedFrame):
            await self._host.end()
        elif isinstance(frame, InterruptionFrame):
            await self._host.interrupt()
        elif isinstance(frame, EndFrame | CancelFrame):
            await self._stop()
        await self.push_frame(frame, direction)

    async def _stop(self) -> None:
        await self._host.close()
        if self._reading is not None:
            await self.cancel_task(self._reading)
            self._reading = None

    async def _hand_on(self) -> None:
        async for part in self._host:
            if isinstance(part, Picture):
                await self.push_frame(OutputImageRawFrame(image=_rgb(part), size=self.size, format="RGB"))
            elif isinstance(part, Sound):
                if self._is_speaking:
                    await self.push_frame(TTSAudioRawFrame(part.samples, RATE, 1))
            elif part["event"] in ("speaking", "idle"):
                self._is_speaking = part["event"] == "speaking"


def _rgb(picture: Picture) -> bytes:
    import cv2

    planes = np.frombuffer(picture.planes, np.uint8).reshape(picture.height * 3 // 2, picture.width)
    return cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420).tobytes()
