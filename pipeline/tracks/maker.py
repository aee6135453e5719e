"""From a sound, a text or both to a track: the only place where networks, voices and rules for mouths meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from audio_processor import load_audio_noted
from language_processor import LanguageProcessor, SpokenText, Utterance
from models.movement_track import MovementSettings
from models.phonemes import Phoneme
from pipeline.options import media_limits
from pipeline.track import Cue, Track, frame_times
from pipeline.tracks.assembling import assemble, moved, shown
from pipeline.tracks.capture import capture
from pipeline.tracks.decoding import decode
from pipeline.tracks.hearing import SAMPLE_RATE, Hearing
from pipeline.tracks.options import TrackOptions
from utils.config import Config
from utils.helpers import InputError, temporary_folder

_ROOT = Path(__file__).resolve().parent.parent.parent
_PARTS = 600  # of a waveform that is drawn
_SPEAKS = 0.5  # chance that somebody speaks from which a sound is believed


@dataclass(frozen=True)
class _Heard:
    """A sound: its samples at 16 kHz, and sentences about it."""

    samples: np.ndarray
    notes: tuple[str, ...]


class TrackMaker:
    """Makes any number of tracks; the networks are loaded for the first one.

    Args:
        config: the configuration.
        device: where the networks compute.
        language: speaks texts and finds them in sounds; needed only where a text is given.
    """

    def __init__(self, config: Config, device: torch.device, language: LanguageProcessor | None = None) -> None:
        self._config, self._device, self._language = config, device, language

    @cached_property
    def hearing(self) -> Hearing:
        """The networks."""
        return Hearing(_ROOT / self._config.inference.weights_dir, self._config.size, self._device)

    def make(self, audio: Path | None, text: SpokenText | None, options: TrackOptions) -> Track:
        """A track of a sound, of a sound whose text is known, or of a text that is spoken by a voice.

        Args:
            audio: a sound file or a video with sound; None: the text is spoken.
            text: what is said; None: nobody knows, and the sounds are recognised.
            options: choices.

        Raises:
            InputError: an input or option cannot be used, or neither sound nor text is given.
        """
        options.check()
        if audio is None and text is None:
            raise InputError("A track needs a sound, a text or a video: give one of them.")
        if audio is None:
            with temporary_folder() as folder:
                said = self._speaker.speak_to_file(text, folder / "speech.wav", self._config.media.max_duration_s)
                return self._spoken(self._load(said.audio), said, text, options, "")
        sound = self._load(audio)
        if text is None:
            return self._recognised(sound, options, audio.name)
        heard, _ = self.hearing.phonemes(self.hearing.listen(sound.samples))
        return self._spoken(sound, self._speaker.align_heard(heard, text, audio), text, options, audio.name)

    def cues(self, samples: np.ndarray, phonemes: Sequence[Phoneme], fps: float) -> tuple[Cue, ...]:
        """Which mouths are drawn one after the other to a sound, as the formats of Rhubarb say it.

        Args:
            samples: mono (N,) at 16 kHz, any float type.
            phonemes: what is said when; none: nobody knows, and the sounds are recognised.
            fps: frames per second of the pictures.
        """
        if not phonemes:
            heard, active = self.hearing.phonemes(self.hearing.listen(samples))
            phonemes = decode(heard, active >= _SPEAKS)
        return shown(len(samples) / SAMPLE_RATE, phonemes, fps)

    def capture(self, video: Path, options: TrackOptions, face: str = "largest") -> Track:
        """A track of the mouth that a video shows; see `pipeline.tracks.capture`."""
        return capture(video, self._config, options, face)

    @property
    def _speaker(self) -> LanguageProcessor:
        if self._language is None:
            raise ValueError("This maker was made without a LanguageProcessor, so it cannot take a text.")
        return self._language

    def _load(self, audio: Path) -> _Heard:
        return _Heard(*load_audio_noted(audio, SAMPLE_RATE, media_limits(self._config.media), np.float16))

    def _spoken(self, sound: _Heard, said: Utterance, text: SpokenText, options: TrackOptions, source: str) -> Track:
        """The track of a sound whose phonemes are known."""
        shape, _, _ = self._heard(sound, options, said.phonemes)
        return self._assembled(
            sound, said.phonemes, shape, options,
            words=self._speaker.words(said, text), source=source, notes=(*sound.notes, *said.notes),
        )  # fmt: skip

    def _recognised(self, sound: _Heard, options: TrackOptions, source: str) -> Track:
        """The track of a sound alone."""
        shape, heard, active = self._heard(sound, options)
        phonemes = decode(heard, active >= _SPEAKS)
        return self._assembled(sound, phonemes, shape, options, source=source, notes=sound.notes)

    def _heard(
        self, sound: _Heard, options: TrackOptions, phonemes: tuple[Phoneme, ...] = ()
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Hearing.both`; what is known is not recognised."""
        chosen = self._config.inference
        settings = MovementSettings(options.seed, chosen.movement_temperature, chosen.movement_steps)
        times = frame_times(len(sound.samples) / SAMPLE_RATE, options.fps)
        speech = self.hearing.listen(sound.samples, phonemes)
        return self.hearing.both(speech, times, settings, recognise=not phonemes)

    def _assembled(
        self, sound: _Heard, phonemes: tuple[Phoneme, ...], shape: np.ndarray, options: TrackOptions, **known: object
    ) -> Track:
        heard, known["peaks"] = moved(shape, self.hearing.mouth_shape), _peaks(sound.samples)
        return assemble(len(sound.samples) / SAMPLE_RATE, phonemes, shape, heard, options, **known)


def _peaks(samples: np.ndarray) -> tuple[float, ...]:
    """The loudest sample of each of `_PARTS` equal parts of a sound (N,)."""
    starts = np.linspace(0, len(samples), _PARTS, endpoint=False).astype(int)
    return tuple(np.maximum.reduceat(np.abs(samples), starts).astype(float).round(3).tolist())
