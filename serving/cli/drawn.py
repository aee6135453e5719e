"""The options about drawn faces on the command line: mouths that are laid over them, and transparent layers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.layer import layer_for
from pipeline.options import ERASES, SPRITES
from utils.helpers import InputError

_BUNDLED = Path()


def add_drawn(parser: argparse.ArgumentParser) -> None:
    """The options about drawn faces."""
    group = parser.add_argument_group("drawn faces (with --face box:X,Y,W,H where none is found)")
    group.add_argument(
        "--sprites",
        type=Path,
        nargs="?",
        const=_BUNDLED,
        metavar="FOLDER",
        help="lay drawn mouths over the face: PNG or WebP pictures A to F, and G, H, X if you like, in a folder or "
        ".zip (without a name: the bundled ones)",
    )
    group.add_argument(
        "--layer",
        action="store_true",
        help="write only what is new, on a transparent picture to put over any footage: .webm (VP9), .mov (ProRes "
        "4444) or .zip (a PNG sequence)",
    )
    group.add_argument(
        "--erase",
        choices=ERASES,
        default="auto",
        help="paint over the mouth that is there before one of --sprites is laid (default: auto: not in a layer)",
    )


def drawn_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What these options say about a run.

    Raises:
        InputError: the output cannot hold a layer, or another engine is asked for.
    """
    chosen: dict[str, Any] = {"erase": arguments.erase}
    if arguments.layer:
        chosen["layer"] = layer_for(arguments.output)
    if arguments.sprites is not None:
        if arguments.engine not in (None, SPRITES):
            raise InputError(f"--sprites lays mouths and {arguments.engine} draws them: leave one of the two out.")
        chosen["engine"] = SPRITES
    return chosen


def own_mouths(arguments: argparse.Namespace) -> Path | None:
    """The mouths that somebody brought; None for the bundled ones."""
    return None if arguments.sprites in (None, _BUNDLED) else arguments.sprites
