"""Sounds that are no speech, made by formula and not recorded: music, noise, hum, wind."""

from __future__ import annotations

import numpy as np
from scipy.signal import butter, sosfilt

CHORDS = ((0, 4, 7), (0, 3, 7), (0, 5, 7), (0, 4, 7, 11), (0, 3, 7, 10))  # semitones above the root
Array = np.ndarray


def background(kind: str, length: int, rate: int, rng: np.random.Generator) -> Array:
    """A sound of one kind.

    Args:
        kind: music | noise | murmur | wind | hum.
        length: samples.
        rate: samples per second.
        rng: source of chance; the same state gives the same sound.

    Returns:
        float32 (length,), root mean square 1.
    """
    makers = {"music": music, "noise": coloured_noise, "murmur": murmur, "wind": wind, "hum": hum}
    made = makers[kind](length, rate, rng)
    return (made / max(float(np.sqrt(np.mean(made**2))), 1e-9)).astype(np.float32)


def music(length: int, rate: int, rng: np.random.Generator) -> Array:
    """Chords with a melody of their notes, and drums in two of three pieces; 70 to 150 beats a minute."""
    beat = round(60 / rng.uniform(70, 150) * rate)
    root, bars = rng.uniform(45, 62), rng.integers(-5, 6, size=4)
    sound = np.zeros(length + 4 * beat)
    brightness, per_beat = rng.uniform(0.8, 2.5), int(rng.integers(1, 4))
    for number, start in enumerate(range(0, length, 4 * beat)):
        chord = root + bars[number % 4] + np.array(CHORDS[rng.integers(len(CHORDS))])
        for note in chord:
            _add(sound, start, 0.5 * _tone(note, 4 * beat, rate, brightness, attack=0.05))
        for step in range(4 * per_beat):
            note = rng.choice(chord) + 12 * rng.integers(0, 3)
            _add(sound, start + step * beat // per_beat, _tone(note, beat // per_beat, rate, brightness, attack=0.01))
    if rng.random() < 0.67:
        sound += rng.uniform(0.5, 2.0) * _drums(len(sound), beat, rate, rng)
    return sound[:length]


def coloured_noise(length: int, rate: int, rng: np.random.Generator) -> Array:
    """White to brown noise, in half of the cases of a band only, in half of them with a level that changes."""
    noise = _power_noise(length, rng.uniform(0.0, 1.2), rng)
    if rng.random() < 0.5:
        low = rng.uniform(50, 1500)
        high = min(low * rng.uniform(2, 8), 0.45 * rate)
        noise = sosfilt(butter(2, (low, high), "bandpass", fs=rate, output="sos"), noise)
    if rng.random() < 0.5:
        noise = noise * _slow_level(length, rate, rng.uniform(0.5, 6), rng)
    return noise


def murmur(length: int, rate: int, rng: np.random.Generator) -> Array:
    """Noise in bands that swell at the pace of syllables (traffic, surf, paper): what a mouth follows most easily."""
    sound = rng.uniform(0, 0.5) * _power_noise(length, 0.7, rng)
    for _ in range(rng.integers(1, 4)):
        low = rng.uniform(150, 3000)
        edges = (low, min(low * rng.uniform(1.3, 4), 0.45 * rate))
        band = sosfilt(butter(2, edges, "bandpass", fs=rate, output="sos"), rng.standard_normal(length))
        sound = sound + band / max(float(band.std()), 1e-9) * _slow_level(length, rate, rng.uniform(1.5, 8), rng)
    return sound


def wind(length: int, rate: int, rng: np.random.Generator) -> Array:
    """Low-passed noise in gusts."""
    low = sosfilt(butter(2, rng.uniform(150, 700), fs=rate, output="sos"), _power_noise(length, 0.7, rng))
    return low * _slow_level(length, rate, rng.uniform(0.3, 1.5), rng) ** 2


def hum(length: int, rate: int, rng: np.random.Generator) -> Array:
    """A machine: harmonics of 40 to 130 Hz, slightly unsteady, and some noise."""
    speed = rng.uniform(40, 130) * (1 + 0.02 * (_slow_level(length, rate, 2.0, rng) - 0.5))
    phase = 2 * np.pi * np.cumsum(speed) / rate
    tones = sum(np.sin(h * phase + rng.uniform(0, 6)) * rng.uniform(0.2, 1) / h for h in range(1, 12))
    return tones + 0.3 * _power_noise(length, 0.5, rng)


def _tone(note: float, length: int, rate: int, brightness: float, attack: float) -> Array:
    """A plucked or bowed note (MIDI number) with harmonics falling as 1 / h**brightness."""
    time = np.arange(length) / rate
    pitch = 440 * 2 ** ((note - 69) / 12)
    count = max(1, min(10, int(0.45 * rate / pitch)))
    sound = sum(np.sin(2 * np.pi * h * pitch * time) / h**brightness for h in range(1, count + 1))
    return sound * np.minimum(1, time / attack) * np.exp(-2.0 * time) * np.minimum(1, (length / rate - time) / 0.02)


def _drums(length: int, beat: int, rate: int, rng: np.random.Generator) -> Array:
    """A bass drum on the beats, a snare on every second one, a hi-hat between."""
    sound = np.zeros(length)
    time = np.arange(round(0.2 * rate)) / rate
    bass = 2 * np.sin(2 * np.pi * 55 * time * (1 + np.exp(-30 * time))) * np.exp(-18 * time)
    for number, start in enumerate(range(0, length, beat)):
        _add(sound, start, bass)
        if number % 2:
            _add(sound, start, rng.standard_normal(len(time)) * np.exp(-25 * time))
        _add(sound, start + beat // 2, 0.5 * np.diff(rng.standard_normal(len(time)), prepend=0) * np.exp(-60 * time))
    return sound


def _add(sound: Array, start: int, part: Array) -> None:
    part = part[: max(0, len(sound) - start)]
    sound[start : start + len(part)] += part


def _power_noise(length: int, slope: float, rng: np.random.Generator) -> Array:
    """Noise whose amplitude falls with frequency to the power of `slope`, unit variance."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** slope
    spectrum[0] = 0
    noise = np.fft.irfft(spectrum, length)
    return noise / max(float(noise.std()), 1e-9)


def _slow_level(length: int, rate: int, changes: float, rng: np.random.Generator) -> Array:
    """A level in [0, 1] that takes a new random value so many times a second."""
    knots = rng.random(int(length / rate * changes) + 3)
    return np.interp(np.arange(length) * changes / rate, np.arange(len(knots)), knots)
