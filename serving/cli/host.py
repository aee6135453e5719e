"""`--make-host`: a person is prepared once, and speaks live ever after."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from pipeline.options import Options
from serving.cli.making import Maker
from utils.helpers import InputError

_SECONDS_BETWEEN_LINES = 5.0
_USELESS = ("audio", "text", "text_file", "output", "fps", "crf", "background")


def add_host(parser: argparse.ArgumentParser) -> None:
    """The options about hosts."""
    host = parser.add_argument_group("hosts (people who speak live, with --mode live)")
    host.add_argument(
        "--make-host",
        metavar="NAME",
        help="make no video, but prepare the person in --video (a video or a portrait) as a host of that name; "
        "--face, --min-confidence, --size and --adapt count",
    )
    host.add_argument(
        "--still", action="store_true", help="the portrait of a host stands still: no breath, no blinks, no movement"
    )


def make_host(arguments: argparse.Namespace, maker: Maker, options: Options) -> str:
    """Prepare a host; returns what was done, for a person.

    Raises:
        InputError: an input or an option cannot be used.
    """
    if arguments.video is None:
        raise InputError("Name the video or portrait of the host with --video.")
    given = [name for name in _USELESS if getattr(arguments, name) is not None]
    if given:
        raise InputError(f"With --make-host nothing is spoken or written; leave --{given[0].replace('_', '-')} out.")
    started, said = time.monotonic(), _Lines()
    host, report = maker.make_host(Path(arguments.video), arguments.make_host, not arguments.still, options, said)
    card = host.card
    seconds = len(host.order) / host.fps
    lines = [
        f"Host: {host.folder}",
        f"  {card.width}x{card.height}, {card.pictures} pictures, plays {float(seconds):.1f} s until it begins again, "
        f"made in {time.monotonic() - started:.0f} s",
        "  Speak with it: python app.py --mode live",
    ]
    return "\n".join(lines if report is None else [*lines[:2], f"  {report.sentence()}", lines[2]])


class _Lines:
    """Says now and then what is done, on standard error."""

    def __init__(self) -> None:
        self._shown = time.monotonic()

    def __call__(self, said: str) -> None:
        if time.monotonic() - self._shown >= _SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            print(said, file=sys.stderr, flush=True)
