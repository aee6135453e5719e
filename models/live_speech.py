"""Sound that is heard while it arrives; see `models.speech_track.Speech`.

The speech encoder sees the last three seconds and, after what has arrived, silence. The level of the speech, which is
known of a whole sound, is that of the last half minute.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch

from models.audio_encoder import (
    CORE_STEPS,
    MARGIN_STEPS,
    MAX_GAIN,
    SPEECH_LEVEL,
    STEP,
    SpeechEncoder,
    levelled,
    log_power,
    speech_window,
)
from models.speech_track import SpeechTrack
from models.voice_activity import BLOCK, CONTEXT, Memory, VoiceActivity, at_steps, loudness_gain

_LEVEL_S = 30.0  # over which the level of the speech is measured
_KEPT_STEPS = 400  # features of the past, 8 s
_KEPT_BLOCKS = 1000  # of voice activity, 32 s; a multiple of 10, since 5 blocks take as long as 8 steps
_ENDLESS = 2**31


class LiveSpeech:
    """Steps of a sound that is still being made. After its end there is silence.

    Args:
        encoder: sound -> features.
        voice_activity: sound -> whether somebody speaks.
        chunks: mono samples at 16 kHz, float in [-1, 1], any number at a time; read only as far as steps are asked for.
        ahead: steps after a frame that are heard before its mouth is drawn.
    """

    def __init__(
        self, encoder: SpeechEncoder, voice_activity: VoiceActivity, chunks: Iterable[np.ndarray], ahead: int
    ) -> None:
        self.ahead: int | None = ahead
        self.phonemes: np.ndarray | None = None  # nobody knows what will be said
        self._encoder, self._voice_activity = encoder, voice_activity
        self._chunks: Iterator[np.ndarray] = iter(chunks)
        self._samples = np.zeros(0, np.float32)  # the last ones
        self._origin = 0  # step at which they begin
        self._waiting: list[np.ndarray] = []  # arrived, but later than asked for
        self._features = np.zeros((0, *encoder.shape), np.float32)  # the last ones, up to `_heard`
        self._heard = 0  # steps
        self._loudest: deque[float] = deque(maxlen=round(_LEVEL_S * 100))
        self._activity = _LiveActivity(voice_activity)

    def __len__(self) -> int:
        return _ENDLESS

    def part(self, first: int, stop: int) -> SpeechTrack:
        """Steps from `first`, at most eight seconds ago, up to, not including, `stop`, once they have arrived."""
        if stop > self._heard:
            self._listen(stop)
        start = self._heard - len(self._features)
        features = self._features[max(first - start, 0) : stop - start]
        if first < start:
            features = np.concatenate([np.repeat(features[:1], start - first, axis=0), features])
        return SpeechTrack(features, self._activity.between(first, stop))

    def _listen(self, stop: int) -> None:
        """Take in the sound up to step `stop`."""
        fresh = self._arrived((stop - self._heard) * STEP)
        self._activity.add(fresh)
        before = self._heard - self._origin
        self._samples = np.concatenate([self._samples, fresh])
        power = log_power(self._samples, 0, 2 * (stop - self._origin))
        self._loudest.extend(power[:, 2 * before :].amax(dim=0).tolist())
        gain = min(SPEECH_LEVEL - float(np.percentile(self._loudest, 95)), MAX_GAIN)
        mel = levelled(power, gain)
        # The newest step is the last one that a window keeps; earlier ones are heard again, with more after them.
        fresh_steps = stop - self._heard
        count = min(-(-fresh_steps // CORE_STEPS), _KEPT_STEPS // CORE_STEPS)
        starts = [stop - (number + 1) * CORE_STEPS for number in reversed(range(count))]
        windows = torch.stack([speech_window(mel, start, 2 * self._origin) for start in starts])
        features = np.concatenate(list(self._encoder.core_features(windows)))
        known = len(features) - fresh_steps  # steps that were heard before
        kept = self._features[: max(len(self._features) - known, 0)] if known >= 0 else self._features[:0]
        self._features = np.concatenate([kept, features])[-min(_KEPT_STEPS, stop) :]
        self._heard = stop
        self._forget()

    def _forget(self) -> None:
        """Drop samples before those that the next window sees."""
        spare = self._heard - self._origin - 2 * (CORE_STEPS + MARGIN_STEPS)
        if spare > 0:
            self._samples, self._origin = self._samples[spare * STEP :], self._origin + spare

    def _arrived(self, count: int) -> np.ndarray:
        """The next `count` samples; silence after the end of the sound."""
        have = sum(map(len, self._waiting))
        while have < count:
            chunk = next(self._chunks, None)
            chunk = np.zeros(count - have, np.float32) if chunk is None else np.asarray(chunk, np.float32)
            self._waiting.append(chunk)
            have += len(chunk)
        joined = np.concatenate(self._waiting)
        self._waiting = [joined[count:]]
        return joined[:count]


class _LiveActivity:
    """Voice activity of the last seconds."""

    def __init__(self, network: VoiceActivity) -> None:
        self._network = network
        self._memory: Memory | None = None
        self._rest = np.zeros(CONTEXT, np.float32)  # not yet a whole block, and what lies before it
        self._loudness: deque[np.ndarray] = deque(maxlen=round(_LEVEL_S * 16000 / BLOCK))
        self._chances = np.zeros(0, np.float32)
        self._dropped = 0  # blocks

    @torch.inference_mode()
    def add(self, samples: np.ndarray) -> None:
        self._rest = np.concatenate([self._rest, samples])
        count = (len(self._rest) - CONTEXT) // BLOCK
        if count == 0:
            return
        used = self._rest[: CONTEXT + count * BLOCK]
        self._loudness.extend(used[CONTEXT:].reshape(-1, BLOCK))
        levelled_part = torch.from_numpy(used * loudness_gain(np.concatenate(self._loudness)))
        windows = levelled_part.to(self._network.conv1.weight.device).unfold(0, CONTEXT + BLOCK, BLOCK)
        chances, self._memory = self._network.listen(windows, self._memory)
        self._chances = np.concatenate([self._chances, chances.cpu().numpy()])
        self._rest = self._rest[count * BLOCK :]
        if len(self._chances) > _KEPT_BLOCKS:
            self._chances, self._dropped = self._chances[_KEPT_BLOCKS // 2 :], self._dropped + _KEPT_BLOCKS // 2

    def between(self, first: int, stop: int) -> np.ndarray:
        if not len(self._chances):
            return np.zeros(stop - first, np.float32)
        gone = self._dropped // 5 * 8  # steps
        return at_steps(self._chances, first - gone, stop - gone)
