"""Names on the command line: standard input, names that begin with a dash, and files that are there already."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from utils.helpers import InputError, temporary_folder

STANDARD_INPUT = Path("-")
_NAMES = ("--video", "--audio", "--output", "--text-file", "--batch", "--track", "--onto")
_PIECE = 1 << 20  # bytes


def with_dashed_names(argv: Sequence[str], options: Collection[str]) -> list[str]:
    """The arguments with file names such as "-clip.mp4" joined to their option: argparse takes them for options.

    Args:
        argv: as typed.
        options: all that there are: what is one of them is no name.
    """
    joined: list[str] = []
    for word in argv:
        dashed = word.startswith("-") and word != "-" and word.partition("=")[0] not in options
        if dashed and joined and joined[-1] in _NAMES:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


@contextmanager
def files_of_one_job(arguments: argparse.Namespace, max_gb: float) -> Iterator[None]:
    """Put a file in the place of "-" and the target in that of a link, and settle what happens to an old output.

    Args:
        arguments: video, audio, text_file, output, track, srt and overwrite are looked at; the names are changed in
            place.
        max_gb: of standard input, 10^9 bytes.

    Raises:
        InputError: standard input is wanted twice or gives too much, or the output is there and is not to be replaced.
    """
    piped = [name for name in ("video", "audio") if getattr(arguments, name) == STANDARD_INPUT]
    if len(piped) > 1:
        raise InputError("Standard input can be the video or the sound, not both; give one of them as a file.")
    if arguments.output is not None:
        arguments.output = _followed(arguments.output)
    if arguments.track is not None:
        arguments.track = [_followed(path) for path in arguments.track]
    _settle(arguments, asks=not piped and sys.stdin is not None and sys.stdin.isatty())
    if not piped:
        yield
        return
    with temporary_folder() as folder:
        target = folder / f"standard_input_{piped[0]}"
        _save(sys.stdin.buffer, target, max_gb)
        setattr(arguments, piped[0], target)
        yield


def _followed(path: Path) -> Path:
    """The target of a link; any other name as it is."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _settle(arguments: argparse.Namespace, asks: bool) -> None:
    inputs = [
        path for path in (arguments.video, arguments.audio, arguments.text_file) if path is not None and path.exists()
    ]
    outputs = [*(arguments.track or []), *([] if arguments.output is None else [arguments.output])]
    if arguments.srt and arguments.output is not None:
        outputs.append(arguments.output.with_suffix(".srt"))
    for output in outputs:
        if arguments.overwrite or not output.is_file() or any(output.samefile(path) for path in inputs):
            continue  # an output that is an input is refused later, with a sentence of its own
        if asks and input(f"The file {output} exists. Overwrite? [y/N] ").strip().lower() in ("y", "yes"):
            continue
        raise InputError(f"The file {output} exists; give another output, or --overwrite to replace it.")


def _save(stream: BinaryIO, target: Path, max_gb: float) -> None:
    with target.open("wb") as file:
        while piece := stream.read(_PIECE):
            file.write(piece)
            if file.tell() > max_gb * 1e9:
                raise InputError(f"Standard input gives more than {max_gb:g} GB; give a smaller file.")
