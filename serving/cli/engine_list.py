"""The options about engines on the command line, and the list of what can draw mouths on this computer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pipeline.engine_choice import EngineView


def add_engines(parser: argparse.ArgumentParser, default: str) -> None:
    """The options about engines; `default`: the configured engine."""
    group = parser.add_argument_group("engine (the network that draws the mouths)")
    group.add_argument("--engine", metavar="NAME", help=f"one of --list-engines, or module:Class (default: {default})")
    group.add_argument(
        "--engine-weights",
        type=Path,
        metavar="FOLDER",
        help="where its weights are: files as published, or a folder for each engine (default: as configured)",
    )
    group.add_argument("--list-engines", action="store_true", help="show all engines and end")
    group.add_argument("--get-engine", metavar="NAME", help="download the weights of an engine and end")
    group.add_argument(
        "--accept-licence", action="store_true", help="with --get-engine: its licence has been read and is accepted"
    )


def engine_lines(views: Sequence[EngineView], default: str) -> str:
    """All engines, for a person."""
    own = f"Own engines: --engine module:Class, see docs/engines.md. Default: {default}."
    return "\n".join([*(_block(view) for view in views), own])


def _block(view: EngineView) -> str:
    known = view.speed is not None
    speed = f"{view.speed:.3g} frames per second on this computer, drawing alone" if known else "not measured"
    size = f" ({view.download_bytes / 1e9:.2f} GB to download)" if view.download_bytes else ""
    return "\n".join(
        [
            f"{view.name}: {'installed' if view.installed else 'not installed'}{size}",
            *([] if view.installed else [f"  {view.state}"]),
            f"  good at: {view.good_at}",
            f"  licence: {view.licence}",
            f"  memory:  {view.memory}",
            f"  weights: {view.weights}",
            f"  speed:   {speed}",
        ]
    )
