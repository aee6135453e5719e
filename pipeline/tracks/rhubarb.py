"""The formats of Rhubarb Lip Sync (its README, "Output formats") and Moho's switch data, which Papagayo writes, too."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

from pipeline.track import Cue, Track, joined, reduced, with_between

PRESTON_BLAIR = {
    "A": "MBP", "B": "etc", "C": "E", "D": "AI", "E": "O", "F": "U", "G": "FV", "H": "L", "X": "rest",
}  # fmt: skip
"""Moho's and Papagayo's names of the mouths, as Rhubarb translates its own."""

def drawn_cues(track: Track) -> tuple[Cue, ...]:
    """The mouths to draw one after the other, with one between those that are far apart, as cartoons have it.

    Of the shapes G, H and X only those that the track's options name.
    """
    return reduced(with_between(track.cues), track.options.extended)


def _hundredths(track: Track) -> tuple[list[Cue], float]:
    """Cues with times in full hundredths of a second, none of them empty, and the duration, cut off."""
    duration = int(100 * track.duration + 1e-6) / 100
    rounded = [Cue(cue.shape, round(cue.start, 2), min(round(cue.end, 2), duration)) for cue in drawn_cues(track)]
    rounded = [cue for cue in rounded if cue.end > cue.start] or [Cue(_rest(track), 0.0, duration)]
    last = rounded[-1]
    return [*joined([*rounded[:-1], Cue(last.shape, last.start, duration)])], duration


def _rest(track: Track) -> str:
    return "X" if "X" in track.options.extended else "A"


def write_tsv(track: Track, path: Path) -> None:
    """Start and shape in each line; the last line is the end of the sound."""
    cues, duration = _hundredths(track)
    lines = [f"{cue.start:.2f}\t{cue.shape}\n" for cue in cues]
    path.write_text("".join([*lines, f"{duration:.2f}\t{_rest(track)}\n"]), encoding="utf-8")


def write_xml(track: Track, path: Path) -> None:
    """<rhubarbResult> with metadata and mouthCues."""
    cues, duration = _hundredths(track)
    root = ElementTree.Element("rhubarbResult")
    metadata = ElementTree.SubElement(root, "metadata")
    ElementTree.SubElement(metadata, "soundFile").text = track.source
    ElementTree.SubElement(metadata, "duration").text = f"{duration:.2f}"
    mouths = ElementTree.SubElement(root, "mouthCues")
    for cue in cues:
        times = {"start": f"{cue.start:.2f}", "end": f"{cue.end:.2f}"}
        ElementTree.SubElement(mouths, "mouthCue", times).text = cue.shape
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def write_json(track: Track, path: Path) -> None:
    """An object with metadata and mouthCues."""
    cues, duration = _hundredths(track)
    told = {
        "metadata": {"soundFile": track.source, "duration": duration},
        "mouthCues": [{"start": cue.start, "end": cue.end, "value": cue.shape} for cue in cues],
    }
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_moho(track: Track, path: Path) -> None:
    """Moho's switch data: frame (the first one is 1) and Preston Blair's name of the mouth; the last line closes it."""
    lines, last = ["MohoSwitch1\n"], 0
    for cue in drawn_cues(track):
        frame = 1 + int(cue.start * track.fps + 1e-6)
        if frame == last and cue.shape in "AG":  # lips that close must be seen
            lines.pop()
        elif frame == last:
            continue
        lines.append(f"{frame} {PRESTON_BLAIR[cue.shape]}\n")
        last = frame
    end = max(1 + int(track.duration * track.fps + 1e-6), last + 1)
    path.write_text("".join([*lines, f"{end} {PRESTON_BLAIR[_rest(track)]}\n"]), encoding="utf-8")
