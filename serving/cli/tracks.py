"""Movement tracks on the command line: `--track out.tsv`, one or many at a time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.tracks.formats import FORMATS
from pipeline.tracks.options import EXTENDED, TrackOptions
from serving.cli.making import TrackJob
from serving.cli.spoken_text import spoken_text_of
from utils.helpers import InputError

if TYPE_CHECKING:
    from pipeline.track import Track

_ABOUT = "; ".join(f"{', '.join(entry.endings)} ({entry.about})" for entry in FORMATS.values())


def add_track(parser: argparse.ArgumentParser) -> None:
    """The options of tracks."""
    usual = TrackOptions()
    track = parser.add_argument_group("movement for one's own rig (of a sound, a text, both, or a --video's mouth)")
    track.add_argument(
        "--track",
        type=Path,
        action="append",
        metavar="FILE",
        help=f"write the movement of the mouth; may be given several times. By the file's ending: {_ABOUT}",
    )
    track.add_argument(
        "--track-format", choices=FORMATS, metavar="NAME", help=f"whatever the ending: {', '.join(FORMATS)}"
    )
    track.add_argument(
        "--onto",
        type=Path,
        metavar="AVATAR",
        help="a .glb or .vrm with blend shapes that is to move, for .glb, .gltf and .vrm (default: a sample head)",
    )
    track.add_argument(
        "--smooth",
        type=float,
        metavar="SECONDS",
        help=f"how long a mouth flows into the next one; 0 = at once (default: {usual.smooth:g})",
    )
    track.add_argument(
        "--strength",
        type=float,
        metavar="X",
        help=f"how far the mouth moves; 1 = as people do, 0.5 = half as far (default: {usual.strength:g})",
    )
    track.add_argument(
        "--extended-shapes",
        metavar="LETTERS",
        help=f"which of Rhubarb's shapes G, H and X are drawn, or '' for none of them (default: {EXTENDED})",
    )


def track_job(arguments: argparse.Namespace, seed: int) -> TrackJob:
    """What the arguments ask for.

    Raises:
        InputError: an output is named as well, or there is neither a sound nor a text nor a video.
    """
    if arguments.output is not None:
        raise InputError("--track makes no video: leave --output out, and run the program once more for the video.")
    if arguments.srt:
        raise InputError("With --track, words with their times are a format: give --track NAME.srt instead of --srt.")
    given = {name: getattr(arguments, name) for name in ("fps", "smooth", "strength")}
    given |= {"extended": arguments.extended_shapes, "format": arguments.track_format}
    given["seed"] = seed if arguments.seed is None else arguments.seed
    options = TrackOptions(**{name: value for name, value in given.items() if value is not None})
    first, *others = arguments.track
    if arguments.video is not None:
        _check_seen(arguments)
        seen = {"video": arguments.video, "face": arguments.face}
        return TrackJob(None, first, tuple(others), options, None, arguments.onto, **seen)
    return TrackJob(arguments.audio, first, tuple(others), options, spoken_text_of(arguments), arguments.onto)


def _check_seen(arguments: argparse.Namespace) -> None:
    """Refuse a sound or a text beside a video whose mouth is to be captured."""
    for name in ("audio", "text", "text_file"):
        if getattr(arguments, name) is not None:
            option = "--" + name.replace("_", "-")
            raise InputError(f"A track is of the mouth that a video shows or of speech: leave --video or {option} out.")


def describe_track(track: Track, job: TrackJob) -> str:
    """What was done, in a few lines for a person."""
    known = "sounds as they were recognised" if job.spoken is None else "sounds of the text"
    known = known if job.video is None else "the mouth that the video shows"
    lines = [f"Written: {', '.join(map(str, job.outputs))}"]
    lines.append(
        f"  {track.duration:.1f} s, {len(track.cues)} mouths, {len(track)} frames at {track.fps:g} a second; {known}"
    )
    return "\n".join([*lines, *(f"  {note}" for note in track.notes)])


def track_facts(track: Track) -> dict[str, object]:
    """What a list's results tell of a track."""
    return {
        "duration": round(track.duration, 3),
        "frames": len(track),
        "mouths": len(track.cues),
        "phonemes": len(track.phonemes),
        "words": len(track.words),
        "notes": list(track.notes),
    }
