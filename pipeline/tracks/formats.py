"""The formats that a track is written in, and which one a file name asks for; light, see `pipeline.tracks.options`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.track import Track
from pipeline.tracks import arkit, captions, gltf, live2d, rhubarb, tables
from pipeline.tracks.avatar import load_avatar
from utils.helpers import InputError, atomic_path


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as in --track-format.
        endings: of file names that mean it, the usual one first.
        about: a few words for a person.
        write: writes a track into a file (and takes an avatar's file or None, where it is one of those).
        avatar: whether it holds a head.
        words: whether it holds words and nothing else.
    """

    name: str
    endings: tuple[str, ...]
    about: str
    write: Callable[..., None]
    avatar: bool = False
    words: bool = False


FORMATS = {
    entry.name: entry
    for entry in (
        Format("rhubarb-tsv", (".tsv",), "Rhubarb Lip Sync, table", rhubarb.write_tsv),
        Format("rhubarb-xml", (".xml",), "Rhubarb Lip Sync, XML", rhubarb.write_xml),
        Format("rhubarb-json", (".json", ".rhubarb.json"), "Rhubarb Lip Sync, JSON", rhubarb.write_json),
        Format("moho", (".dat",), "Moho, Papagayo, OpenToonz", rhubarb.write_moho),
        Format("adobe", (".visemes.csv",), "visemes of Adobe Character Animator", tables.write_adobe),
        Format("live-link", (".csv", ".livelink.csv", ".arkit.csv"), "ARKit, as Live Link Face", arkit.write_live_link),
        Format("arkit-json", (".arkit.json",), "ARKit blend shapes, JSON", arkit.write_arkit_json),
        Format("oculus", (".oculus.csv",), "15 visemes of Oculus for each frame", tables.write_oculus),
        Format("vrm", (".vrm.csv",), "VRM's vowels for each frame", tables.write_vrm),
        Format("keyframes", (".keyframes.csv",), "After Effects, Blender: lips and jaw", tables.write_keyframes),
        Format("live2d", (".motion3.json",), "Live2D, VTube Studio", live2d.write_motion),
        Format("glb", (".glb", ".vrm"), "animated head or avatar, binary glTF", gltf.write_glb, avatar=True),
        Format("gltf", (".gltf",), "the same as text", gltf.write_gltf, avatar=True),
        Format("srt", (".srt",), "a word in each cue", captions.write_srt, words=True),
        Format("vtt", (".vtt",), "words with times inside lines", captions.write_vtt, words=True),
        Format("preview", (".html",), "a page that shows it: animated mouth, curves", tables.write_preview),
        Format("track", (".track.json",), "everything that is known", tables.write_track_json),
    )
}


def format_of(path: Path, name: str | None = None) -> Format:
    """The format that is asked for.

    Args:
        path: the file to write; the longest ending that is known counts, upper or lower case.
        name: of the format; None = by the file's ending.

    Raises:
        InputError: there is no such format.
    """
    if name is not None:
        if name not in FORMATS:
            raise InputError(f"There is no track format '{name}'; use one of {', '.join(FORMATS)}.")
        return FORMATS[name]
    endings = {ending: entry for entry in FORMATS.values() for ending in entry.endings}
    fitting = [ending for ending in endings if path.name.lower().endswith(ending)]
    if not fitting:
        raise InputError(f"A track cannot be written as '{path.name}'; use one of the endings {', '.join(endings)}.")
    return endings[max(fitting, key=len)]


def suffix_of(options: Mapping[str, Any]) -> str:
    """The last part of the usual ending of the format that a track's options name, such as ".csv"."""
    return Path(f"track{FORMATS[options['format']].endings[0]}").suffix


def check_avatar(onto: Path, wanted: bool) -> None:
    """Raise InputError where an avatar cannot be used, or no format that is `wanted` holds one."""
    if not wanted:
        raise InputError("An avatar is moved in .glb, .gltf and .vrm only: give --track NAME.glb as well.")
    load_avatar(onto)


def check_words(path: Path, chosen: Format, known: bool) -> None:
    """Raise InputError where a format needs words and they are not `known`."""
    if chosen.words and not known:
        raise InputError(
            f"{path.name} is to hold words, and nobody knows what is said: give --text or --text-file as well."
        )


def write_track(track: Track, path: Path, onto: Path | None = None) -> None:
    """Write a track in the format that its options or the file's ending ask for.

    The file appears under its name only when it is complete.

    Args:
        track: the movement.
        path: the file.
        onto: an avatar for the formats that hold one; None = the sample head.

    Raises:
        InputError: there is no such format, it needs words and there are none, the avatar cannot be used, or the file
            cannot be written.
    """
    chosen = format_of(path, track.options.format)
    check_words(path, chosen, bool(track.words))
    with atomic_path(path) as temporary:
        if chosen.avatar:
            chosen.write(track, temporary, onto)
        else:
            chosen.write(track, temporary)
