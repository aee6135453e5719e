"""The raw videos of a data set, and what is known about them without looking at them."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from utils.helpers import InputError

VIDEO_SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m4v"}


@dataclass(frozen=True)
class RawClip:
    """One raw video and what is known about it."""

    video: Path
    audio: Path
    split: str
    person: str
    language: str
    text: str
    source: str


def find_raw_clips(raw: Path, split: str) -> list[RawClip]:
    """The raw videos of a split with their sound, text and manifest entry.

    Raises:
        InputError: the folder ``raw/split/videos`` does not exist.
    """
    folder = raw / split / "videos"
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; put the videos of the split '{split}' there.")
    manifest = _read_manifest(raw / "manifest.tsv")
    clips = []
    for video in sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES):
        entry = manifest.get(f"{split}/videos/{video.name}", {})
        text_file = raw / split / "texts" / f"{video.stem}.txt"
        text = text_file.read_text(encoding="utf-8").strip() if text_file.is_file() else entry.get("text", "")
        audios = sorted((raw / split / "audios").glob(f"{_glob_escaped(video.stem)}.*"))
        audio = audios[0] if audios else video
        person = entry.get("person") or video.stem
        clips.append(RawClip(video, audio, split, person, entry.get("language", ""), text, entry.get("source", "")))
    return clips


def by_turns(clips: list[RawClip]) -> list[RawClip]:
    """One clip of each person in turn, so that an interrupted run has seen as many people as possible."""
    seen: Counter = Counter()
    turns = []
    for clip in clips:
        turns.append((seen[clip.person], clip))
        seen[clip.person] += 1
    return [clip for _, clip in sorted(turns, key=lambda turn: turn[0])]


def _glob_escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)


def _read_manifest(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
