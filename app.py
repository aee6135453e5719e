"""The front door: `python app.py --mode cli ...`. Parses the mode and hands over; no logic."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one mode of the program and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", choices=("cli", "web", "api"), default="cli")
    mode, rest = parser.parse_known_args(arguments)
    if mode.mode != "cli":
        print(f"--mode {mode.mode} comes with a later version; use --mode cli for now.", file=sys.stderr)
        return 2
    from serving import cli  # loads the numerical libraries, which takes seconds

    return cli.main(rest)


if __name__ == "__main__":
    sys.exit(main())
