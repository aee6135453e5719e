"""A whole sound heard step by step as it is asked for, so that memory holds the samples and little else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch

from models.audio_encoder import (
    CORE_STEPS,
    HOP,
    SpeechEncoder,
    levelled,
    log_power,
    mel_frames,
    speech_gain,
    speech_window,
)
from models.phonemes import Phoneme, phoneme_track
from models.speech_track import SpeechTrack
from models.voice_activity import BLOCK, CONTEXT, Memory, VoiceActivity, at_steps, loudness_gain, step_count

_GROUP = 4  # windows of features that are computed at once, 8 s
_KEPT_GROUPS = 3  # of them; requests go forward, and look back by about a second
_BLOCKS_AT_ONCE = 256  # of voice activity, 8 s
_CONTEXT_FRAMES = 200  # mel frames before and after a group that its windows look at, at least


class LazySpeech:
    """The same steps as `SpeechTrack` would hold, computed when they are asked for; see `models.speech_track.Speech`.

    It keeps the samples (32 KB for each second in float16), voice activity (0.2 KB), and the features of some 24 s.

    Args:
        encoder: sound -> features.
        voice_activity: sound -> whether somebody speaks.
        samples: mono (N,) at 16 kHz, any float type and level; float16 is enough.
        phonemes: what is said when; none at all = not known.
    """

    ahead: int | None = None

    def __init__(
        self,
        encoder: SpeechEncoder,
        voice_activity: VoiceActivity,
        samples: np.ndarray,
        phonemes: Sequence[Phoneme] = (),
    ) -> None:
        self._encoder, self._voice_activity, self._samples = encoder, voice_activity, samples
        self.phonemes = phoneme_track(phonemes, len(self)) if phonemes else None
        self._gain = speech_gain(samples) if len(samples) else 0.0
        self._loudness = loudness_gain(samples) if len(samples) else 1.0
        self._groups: OrderedDict[int, np.ndarray] = OrderedDict()
        self._chances = np.zeros(0, np.float32)
        self._memory: Memory | None = None

    def __len__(self) -> int:
        return step_count(len(self._samples))

    def part(self, first: int, stop: int) -> SpeechTrack:
        """Steps from `first` up to, not including, `stop`."""
        stop = min(stop, len(self))
        size = _GROUP * CORE_STEPS
        pieces = [self._group(number) for number in range(first // size, -(-stop // size))]
        start = first // size * size
        features = np.concatenate(pieces)[first - start : stop - start]
        phonemes = None if self.phonemes is None else self.phonemes[first:stop]
        return SpeechTrack(features, self._activity(first, stop), phonemes)

    def _group(self, number: int) -> np.ndarray:
        """Features of the steps from number * 400 on, float16."""
        if number in self._groups:
            self._groups.move_to_end(number)
            return self._groups[number]
        first = number * _GROUP * CORE_STEPS
        starts = range(first, min(first + _GROUP * CORE_STEPS, len(self)), CORE_STEPS)
        frames = mel_frames(len(self._samples))
        low, high = max(0, 2 * first - _CONTEXT_FRAMES), min(frames, 2 * (starts[-1] + CORE_STEPS) + _CONTEXT_FRAMES)
        mel = levelled(log_power(self._samples, low, high), self._gain)
        windows = torch.stack([speech_window(mel, start, low) for start in starts])
        features = self._encoder.core_features(windows).astype(np.float16)
        self._groups[number] = features.reshape(-1, *features.shape[2:])[: len(self) - first]
        while len(self._groups) > _KEPT_GROUPS:
            self._groups.popitem(last=False)
        return self._groups[number]

    @torch.inference_mode()
    def _activity(self, first: int, stop: int) -> np.ndarray:
        blocks = -(-len(self._samples) // BLOCK)
        needed = min(blocks, stop * 2 * HOP // BLOCK + 2)
        while len(self._chances) < needed:
            at = len(self._chances)
            until = min(blocks, at + _BLOCKS_AT_ONCE)
            piece = np.asarray(self._samples[max(0, at * BLOCK - CONTEXT) : until * BLOCK], np.float32)
            missing = CONTEXT if at == 0 else 0
            piece = np.pad(piece * self._loudness, (missing, (until - at) * BLOCK + CONTEXT - missing - len(piece)))
            device = self._encoder.mean.device
            windows = torch.from_numpy(piece).to(device).unfold(0, CONTEXT + BLOCK, BLOCK)
            chances, self._memory = self._voice_activity.listen(windows, self._memory)
            self._chances = np.concatenate([self._chances, chances.cpu().numpy()])
        return at_steps(self._chances, first, stop)
