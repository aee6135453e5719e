"""Which clips are scored, and whose speech they get."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audio_processor import probe_audio
from data.preprocess import VIDEO_SUFFIXES, RawClip, by_turns, find_raw_clips
from utils.helpers import InputError


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
