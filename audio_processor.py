"""Sound for the models: decode any file to mono float samples that line up with the pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np
import soundfile
from av.audio.stream import AudioStream
from av.container import InputContainer

from utils.helpers import InputError
from utils.media import (
    MediaLimits,
    aligned_sound,
    audio_stream,
    decoded,
    open_media,
    stream_duration,
    too_long_sound,
)

SAMPLE_RATE = 16000
"""Hz; what the speech encoder expects."""

_MIX_RATE = 48000  # Hz, of sounds that are mixed
# Below this level a recording holds no speech; making it louder would only bring up noise.
_SILENCE_DBFS = -70.0
# Of the power that channels without anything in common would leave; less means that they cancel each other.
_CANCELLED = 0.1


@dataclass(frozen=True)
class AudioInfo:
    """What is known of a sound file.

    Attributes:
        duration: seconds.
        sample_rate: Hz.
        channels: number of channels.
        codec: FFmpeg's name of the codec.
    """

    duration: float
    sample_rate: int
    channels: int
    codec: str


def probe_audio(path: str | os.PathLike[str], limits: MediaLimits | None = None) -> AudioInfo:
    """Find out what a sound or video file holds: the sound that a player would play first.

    The duration comes from the header where there is one and is counted by decoding otherwise.

    Args:
        path: a sound file or a video with sound.
        limits: what is too big; None for the defaults.

    Raises:
        InputError: missing, empty, not a media file, no sound stream, zero length, or too long.
    """
    path, limits = Path(path), limits or MediaLimits()
    with open_media(path, limits) as container:
        stream = _audio_stream(container, path)
        if not stream.sample_rate or next(decoded(container, stream), None) is None:
            raise _silent(path)
        duration = stream_duration(container, stream) or load_audio(path, SAMPLE_RATE, limits).size / SAMPLE_RATE
        if duration > limits.max_duration_s:
            raise InputError(too_long_sound(path, limits.max_duration_s))
        return AudioInfo(duration, stream.sample_rate, stream.channels, stream.codec_context.name)


def load_audio(
    path: str | os.PathLike[str],
    sample_rate: int = SAMPLE_RATE,
    limits: MediaLimits | None = None,
    dtype: type[np.floating] = np.float32,
) -> np.ndarray:
    """Decode the sound that a player would play first to mono.

    Sample 0 is the moment of the first picture if the file is a video, so that time in the samples is time
    in the frames; gaps in the sound are filled with silence.

    Args:
        path: a sound file or a video with sound.
        sample_rate: Hz of the result.
        limits: what is too big; None for the defaults.
        dtype: of the result; np.float16 takes half the memory, and its rounding is far below hearing.

    Returns:
        (N,) in [-1, 1].

    Raises:
        InputError: missing, empty, not a media file, no sound stream, zero length, damaged, or too long.
    """
    return load_audio_noted(path, sample_rate, limits, dtype)[0]


def load_audio_noted(
    path: str | os.PathLike[str],
    sample_rate: int = SAMPLE_RATE,
    limits: MediaLimits | None = None,
    dtype: type[np.floating] = np.float32,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """As `load_audio`, and sentences for the user about the sound: channels that cancel each other, or silence.

    Channels are mixed by their mean. Where one is the other turned over, that leaves nothing, so the loudest is
    taken alone.
    """
    path, limits = Path(path), limits or MediaLimits()
    samples, powers = _mixed(path, sample_rate, limits, dtype)
    notes = []
    if float(np.mean(np.square(samples, dtype=np.float64))) < _CANCELLED * powers.sum() / powers.size**2:
        samples, _ = _mixed(path, sample_rate, limits, dtype, channel=int(powers.argmax()))
        notes.append(f"The channels of {path.name} cancel each other (one is inverted): the loudest alone was heard.")
    if _level(samples, sample_rate, above=1.0) < _SILENCE_DBFS:
        notes.append(f"The sound of {path.name} is silent throughout: the mouth stays at rest.")
    return samples, tuple(notes)


def write_mix(
    voice: Path, under: Path, level_db: float, seconds: float, target: Path, limits: MediaLimits | None = None
) -> None:
    """Write a voice with another sound under it as WAV, stereo at 48 kHz.

    Args:
        voice: the file that is heard as it is.
        under: the file under it; it begins again as often as needed.
        level_db: of that, dB.
        seconds: length of the result.
        target: the file to write.
        limits: what is too big; None for the defaults.

    Raises:
        InputError: as `load_audio`.
    """
    limits, gain = limits or MediaLimits(), np.float32(10 ** (level_db / 20))
    left = round(seconds * _MIX_RATE)
    pairs = zip_longest(_seconds(voice, limits), _again(under, limits), fillvalue=np.zeros((0, 2), np.float32))
    with soundfile.SoundFile(target, "w", _MIX_RATE, 2, "PCM_16") as file:
        for above, below in pairs:
            mixed = np.zeros((min(left, _MIX_RATE), 2), np.float32)
            for part, weight in ((above[: len(mixed)], np.float32(1)), (below[: len(mixed)], gain)):
                mixed[: len(part)] += weight * part
            file.write(np.clip(mixed, -1, 1))
            left -= len(mixed)
            if left <= 0:
                return


def _again(path: Path, limits: MediaLimits) -> Iterator[np.ndarray]:
    """A sound again and again without an end, in seconds; where it begins anew it is faded."""
    fade = np.linspace(0, 1, _MIX_RATE // 20, dtype=np.float32)[:, None]
    rest, first = np.zeros((0, 2), np.float32), True
    while True:
        for second in _seconds(path, limits):
            last = len(second) < _MIX_RATE
            if not first or last:
                size = min(len(fade), len(second))
                second = second.copy()
                second[:size] *= 1 if first else fade[:size]
                second[len(second) - size :] *= fade[::-1][len(fade) - size :] if last else 1
            first = last
            rest = np.concatenate([rest, second])
            if len(rest) >= _MIX_RATE:
                yield rest[:_MIX_RATE]
                rest = rest[_MIX_RATE:]


def _seconds(path: Path, limits: MediaLimits) -> Iterator[np.ndarray]:
    """A sound in stereo (48000, 2) at 48 kHz, second by second; the last one is shorter, and may be empty."""
    rest: list[np.ndarray] = []
    with open_media(path, limits) as container:
        stream = _audio_stream(container, path)
        layout = "mono" if stream.channels == 1 else "stereo"  # FFmpeg would make the two of one softer
        for frame in aligned_sound(container, stream, _MIX_RATE, "flt", layout, limits.max_duration_s):
            channels = _in_range(frame.to_ndarray().reshape(frame.samples, -1))
            rest.append(np.broadcast_to(channels, (len(channels), 2)))
            while sum(map(len, rest)) >= _MIX_RATE:
                joined = np.concatenate(rest)
                yield joined[:_MIX_RATE]
                rest = [joined[_MIX_RATE:]]
    yield np.concatenate(rest) if rest else np.zeros((0, 2), np.float32)


def _mixed(
    path: Path, sample_rate: int, limits: MediaLimits, dtype: type[np.floating], channel: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of all channels or one alone (N,), and the mean power of each channel (C,)."""
    pieces, powers = [], np.zeros(1)
    with open_media(path, limits) as container:
        stream = _audio_stream(container, path)
        # Channels side by side: PyAV reads beyond its memory where eight or more lie one after another.
        for frame in aligned_sound(container, stream, sample_rate, "flt", max_duration_s=limits.max_duration_s):
            channels = _in_range(frame.to_ndarray().reshape(frame.samples, -1))
            powers = powers + np.square(channels, dtype=np.float64).sum(axis=0)
            # The mean, because FFmpeg's own mix of channels can exceed full scale.
            pieces.append((channels.mean(axis=1) if channel is None else channels[:, channel]).astype(dtype))
    if not sum(piece.size for piece in pieces):
        raise _silent(path)
    samples = np.concatenate(pieces)
    return samples, powers / samples.size


def _in_range(samples: np.ndarray) -> np.ndarray:
    """Samples stored as floating point may be anything, even no number."""
    return np.clip(np.nan_to_num(samples, posinf=1.0, neginf=-1.0), -1.0, 1.0)


def normalize_loudness(samples: np.ndarray, target_dbfs: float = -23.0) -> np.ndarray:
    """Bring speech to one level, for the model's ears only (the output keeps the sound as given).

    The level is measured over the louder half of 0.1 s pieces, so that pauses do not count; peaks are kept
    below full scale, and a file of near silence is left alone.

    Args:
        samples: float32 (N,) at 16 kHz.
        target_dbfs: dB relative to full scale (RMS).

    Returns:
        float32 (N,) in [-1, 1].
    """
    level = _level(samples, SAMPLE_RATE, above=0.5)
    if level < _SILENCE_DBFS:
        return samples
    gain = 10 ** ((target_dbfs - level) / 20)
    return (samples * min(gain, 1.0 / float(np.abs(samples).max()))).astype(np.float32)


def _level(samples: np.ndarray, sample_rate: int, above: float) -> float:
    """dBFS (RMS) of the 0.1 s pieces that are louder than this part of all; 0.5: the louder half, 1: the loudest."""
    pieces = np.array_split(samples, max(1, samples.size // (sample_rate // 10)))
    power = np.sort([float(np.mean(np.square(piece, dtype=np.float64))) for piece in pieces])
    return float(10 * np.log10(np.mean(power[min(int(power.size * above), power.size - 1) :]) + 1e-12))


def _audio_stream(container: InputContainer, path: Path) -> AudioStream:
    stream = audio_stream(container)
    if stream is None:
        raise InputError(f"The file {path} has no sound stream; give a file with speech in it.")
    return stream


def _silent(path: Path) -> InputError:
    return InputError(f"The sound of {path} has zero length; give a file with speech in it.")
