"""What the networks hear in a sound, block by block: phonemes, and how a mouth moves to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from faces.mouth_shape import RESTING_OPENING_PX, MouthShape
from models.audio_encoder import SpeechEncoder
from models.checkpoint import load_pretrained
from models.lazy_speech import LazySpeech
from models.listening import SpeechListener
from models.movement import MovementModel
from models.movement_track import Movement, MovementSettings
from models.phoneme_recogniser import PhonemeRecogniser
from models.phonemes import STEPS_PER_SECOND, Phoneme
from models.speech_model import load_speech_model
from models.voice_activity import VoiceActivity

SAMPLE_RATE = 16000
BLOCK_S = 8.0  # of sound that is heard at once


class Hearing:
    """The networks between sound and movement. What is kept of a sound is 13 KB a second beside its samples.

    Args:
        weights: folder like `pretrained/`.
        size: of the networks, a folder in it.
        device: where they compute.

    Raises:
        InputError: weights are missing.
    """

    def __init__(self, weights: Path, size: str, device: torch.device) -> None:
        self._encoder = SpeechEncoder.from_pretrained(weights / "whisper_tiny_en_encoder", device)
        self._activity = VoiceActivity.from_pretrained(weights / "voice_activity").to(device)
        self._recogniser = load_pretrained(PhonemeRecogniser, weights / size / "phonemes").to(device)
        self._speech = load_speech_model(weights / size / "generator").to(device)
        self._movement = load_pretrained(MovementModel, weights / size / "movement").to(device)
        self.mouth_shape = MouthShape.load(weights / "mouth_shape")

    def listen(self, samples: np.ndarray, phonemes: tuple[Phoneme, ...] = ()) -> LazySpeech:
        """A sound, mono (N,) at 16 kHz, any float type; nothing is computed yet."""
        return LazySpeech(self._encoder, self._activity, samples, phonemes)

    def phonemes(self, speech: LazySpeech) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities (T, phonemes) float16 at 50 Hz, and the chance (T,) that somebody speaks."""
        parts = [(self._recognised(speech, first, stop), speech.part(first, stop).activity) for first, stop in
                 self._blocks(speech)]  # fmt: skip
        if not parts:
            return np.zeros((0, self._recogniser.config.phonemes), np.float16), np.zeros(0, np.float32)
        heard, active = zip(*parts, strict=True)
        return np.concatenate(heard), np.concatenate(active)

    def movement(self, speech: LazySpeech, settings: MovementSettings) -> Movement:
        """How the mouth of an average person moves to a sound."""
        return Movement(self._movement, SpeechListener(self._speech, speech), RESTING_OPENING_PX, settings)

    def both(
        self, speech: LazySpeech, times: np.ndarray, settings: MovementSettings, recognise: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Movement at frames and, where wanted, phonemes, in one pass over the sound.

        Args:
            speech: the sound.
            times: of frames (F,), seconds, rising.
            settings: of the movement.
            recognise: whether phonemes are wanted.

        Returns:
            Mouth shapes (F, K) float32, and what `phonemes` gives (empty where not wanted).
        """
        movement, shapes, heard, active = self.movement(speech, settings), [], [], []
        for first, stop in self._blocks(speech):
            if recognise:
                heard.append(self._recognised(speech, first, stop))
            active.append(speech.part(first, stop).activity)
            end = stop / STEPS_PER_SECOND if stop < len(speech) else np.inf
            near = times[np.searchsorted(times, first / STEPS_PER_SECOND) : np.searchsorted(times, end)]
            if len(near):
                shapes.append(movement.shapes(near))
        nothing = np.zeros((0, self._recogniser.config.phonemes), np.float16)
        return np.concatenate(shapes), np.concatenate(heard) if heard else nothing, np.concatenate(active)

    def _blocks(self, speech: LazySpeech) -> Iterator[tuple[int, int]]:
        size = round(BLOCK_S * STEPS_PER_SECOND)
        return ((first, min(first + size, len(speech))) for first in range(0, len(speech), size))

    def _recognised(self, speech: LazySpeech, first: int, stop: int) -> np.ndarray:
        """Log-probabilities of steps, with what lies around them heard along."""
        return self._recogniser.heard(speech, first, stop).astype(np.float16)
