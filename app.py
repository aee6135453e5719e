"""The front door: `python app.py --mode cli ...`. Parses the mode and hands over; no logic."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

_MODES = {"web": "serving.web", "cli": "serving.cli", "api": "serving.server", "worker": "serving.worker"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one mode of the program and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", choices=tuple(_MODES), default="cli")
    mode, rest = parser.parse_known_args(arguments)
    try:
        module = importlib.import_module(_MODES[mode.mode])
    except ModuleNotFoundError as error:
        print(f"error: --mode {mode.mode} needs the package {error.name}: see requirements.txt.", file=sys.stderr)
        return 2
    return module.main(rest)


if __name__ == "__main__":
    sys.exit(main())
