"""Which clips are scored, and whose speech they get."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile

from audio_processor import SAMPLE_RATE, load_audio, probe_audio
from data.preprocess import FPS
from data.raw_clips import VIDEO_SUFFIXES, RawClip, by_turns, find_raw_clips
from utils.helpers import InputError, atomic_path


@dataclass(frozen=True)
class Speech:
    """The sound that a clip is given: the clip it comes from, and the file."""

    name: str
    audio: Path


def find_clips(folder: Path, count: int | None = None) -> list[RawClip]:
    """Videos of a folder, in turn over the people.

    People are known where the folder is ``<split>/videos`` of a raw data set with ``manifest.tsv``; elsewhere each
    video counts as a person of its own.

    Args:
        folder: with videos.
        count: how many at most; None for all.

    Raises:
        InputError: there is no folder, or no video in it.
    """
    if folder.resolve().name == "videos":
        clips = find_raw_clips(folder.resolve().parents[1], folder.resolve().parent.name)
    else:
        clips = [RawClip(path, path, "", path.stem, "", "", "") for path in find_videos(folder)]
    if not clips:
        raise InputError(f"There is no video in {folder}; give a folder with videos of people speaking.")
    return by_turns(clips)[:count]


def in_step(clips: list[RawClip], processed: Path, folder: Path) -> list[RawClip]:
    """Clips with their sounds shifted by as much as preprocessing found them to be off the picture.

    Args:
        clips: as they are.
        processed: a processed split, with one folder for each clip.
        folder: where the shifted sounds are written, mono 16 kHz.

    Raises:
        InputError: a clip is not in `processed`, or was not measured there.
    """
    return [_shifted(clip, processed / clip.video.stem / "meta.json", folder) for clip in clips]


def _shifted(clip: RawClip, meta: Path, folder: Path) -> RawClip:
    offset = json.loads(meta.read_text(encoding="utf-8")).get("sync_offset") if meta.is_file() else None
    if offset is None:
        raise InputError(
            f"{meta.parent} does not say how far the sound is off: run data/preprocess.py with --sync_network first."
        )
    if offset == 0:
        return clip
    target = folder / f"{clip.video.stem}.wav"
    if not target.is_file():
        samples, moved = load_audio(clip.audio, SAMPLE_RATE), round(offset / FPS * SAMPLE_RATE)
        shifted = samples[moved:] if moved > 0 else np.concatenate([np.zeros(-moved, np.float32), samples])
        with atomic_path(target) as path:
            soundfile.write(path, shifted, SAMPLE_RATE)
    return replace(clip, audio=target)


def find_videos(folder: Path) -> list[Path]:
    """The videos of a folder by name.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"There is no folder {folder}; give a folder with videos.")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)


def pair_with_speech(clips: list[RawClip], seed: int = 0) -> dict[str, Speech]:
    """For every clip the speech of another person, of nearly the same length; each is used once where possible.

    Args:
        clips: at least two.
        seed: of the choice among speeches of the same length.

    Returns:
        Name of the clip's video -> speech.

    Raises:
        InputError: all clips are of one person.
    """
    if len({clip.person for clip in clips}) < 2:
        raise InputError("New speech is taken from another person, but all clips show one; give clips of two or more.")
    lengths = {clip.video.name: round(probe_audio(clip.audio).duration, 1) for clip in clips}
    order = np.random.default_rng(seed).permutation(len(clips))
    # People with many clips choose first: in the end only they would be left without another person's speech.
    crowd = Counter(clip.person for clip in clips)
    waiting = sorted((clips[i] for i in order), key=lambda clip: -crowd[clip.person])
    unused = list(reversed(waiting))
    pairs = {}
    for clip in waiting:
        others = [other for other in unused if other.person != clip.person]
        others = others or [other for other in clips if other.person != clip.person]
        length = lengths[clip.video.name]
        chosen = min(others, key=lambda other: abs(lengths[other.video.name] - length))
        pairs[clip.video.name] = Speech(chosen.video.stem, chosen.audio)
        if chosen in unused:
            unused.remove(chosen)
    return pairs


def longest(clips: list[RawClip], count: int) -> list[RawClip]:
    """The clips with most sound: adaptation to the speaker needs some seconds to learn from."""
    return sorted(clips, key=lambda clip: -probe_audio(clip.audio).duration)[:count]


def pair_with_truth(results: Path, truths: Path) -> list[tuple[Path, RawClip]]:
    """Results and the real videos of the same name (without the suffix), in turn over the people.

    Raises:
        InputError: a folder is missing, or no names match.
    """
    found = {path.stem: path for path in find_videos(results)}
    pairs = [(found[clip.video.stem], clip) for clip in find_clips(truths) if clip.video.stem in found]
    if not pairs:
        raise InputError(f"No video in {results} has the name of one in {truths}; name results as their real videos.")
    return pairs
