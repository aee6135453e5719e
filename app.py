"""The front door: `python app.py --mode cli ...`. Parses the mode and hands over; no logic."""

from __future__ import annotations

import signal

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until somebody listens, Ctrl-C simply ends the program

import argparse  # noqa: E402
import importlib  # noqa: E402
import sys  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from utils.stopping import StopSignals, end_process  # noqa: E402

_MODES = {
    "cli": "serving.cli.command",
    "web": "serving.page.web",
    "api": "serving.http.server",
    "worker": "serving.jobs.worker",
    "live": "serving.live.server",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one mode of the program and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--mode", choices=tuple(_MODES), default="cli")
    mode, rest = parser.parse_known_args(arguments)
    if mode.mode != "cli":  # a service ends in its own way
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return _run(mode.mode, rest)
    code = 0
    with StopSignals() as signals:
        code = _run(mode.mode, rest)
    return code if signals.exit_code is None else signals.exit_code


def _run(mode: str, arguments: Sequence[str]) -> int:
    try:
        module = importlib.import_module(_MODES[mode])
    except ModuleNotFoundError as error:
        print(f"error: --mode {mode} needs the package {error.name}: see requirements.txt.", file=sys.stderr)
        return 2
    return module.main(arguments)


if __name__ == "__main__":
    end_process(main())
