"""A process that does nothing but run the pipeline, one job after another, for the worker that started it.

It is apart from the worker so that a job can be stopped at any moment, and so that a file that brings a decoder down
brings down nothing else. Worker and runner talk in lines of JSON over the runner's standard input and output:

    to the runner    {"run": {"video": path, "audio": path | null, "output": path, "options": {...}, ...}}
                     {"stop": true}
    from it          {"event": "alive", "computed": seconds of work so far, "moved": blocks read and written so far}
                     every second,
                     {"event": "ready"}, {"event": "progress", "frames": n, "expected": n | null},
                     {"event": "done", "summary": {...}}, {"event": "refused", "sentence": ..., "code": ...},
                     {"event": "stopped"}, {"event": "broken", "sentence": ..., "code": ...}

When its worker dies, its standard input ends and so does it; Linux ends it even if it is stopped just then. The other
side is `serving/jobs/runner_process.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

try:
    import resource
except ModuleNotFoundError:  # Windows
    resource = None  # type: ignore[assignment]

from serving.logs import log_as_json
from serving.problems import Problem, in_api_terms
from utils.disk import is_disk_full
from utils.helpers import InputError

if TYPE_CHECKING:
    from pipeline import Summary

SUBTITLES = "subtitles.srt"
"""Name beside the output of its subtitles, where they are wanted."""
PREVIEW = "preview.mp4"
"""Name beside the output of its first seconds; it is there as soon as they are made."""

_LOG = logging.getLogger("lipsync.runner")
_BEAT_S = 1.0
_PR_SET_PDEATHSIG = 1


class _Stopped(Exception):
    """The worker wants no more of this job."""


def _belong_to_worker() -> None:
    """Be the head of a group, so that the worker can end us together with what we have started; and end when the
    worker's thread that started us does (see prctl(2)), which also reaches a process that is stopped."""
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _private_line() -> tuple[TextIO, TextIO]:
    """Our ends of the line to the worker, and nobody else's: programs that we start find an empty standard input, and
    the log as standard output, which also keeps what libraries print from getting between our lines; a forked child
    loses them."""
    asked, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)

    def lose() -> None:
        for end in (asked, answers):
            os.dup2(nothing, end.fileno(), inheritable=False)

    os.dup2(nothing, 0)
    os.dup2(2, 1)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lose)
    return asked, answers


def _blocks_moved() -> int:
    """How often this process has read from or written to a disk so far; 0 where the system does not tell."""
    if resource is None:
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_inblock + used.ru_oublock + used.ru_majflt


class _Line:
    """The connection to the worker."""

    def __init__(self) -> None:
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stop = threading.Event()
        self._asked, self._answers = _private_line()
        self._telling = threading.Lock()
        for body in (self._listen, self._live):
            threading.Thread(target=body, daemon=True).start()

    def _listen(self) -> None:
        for line in self._asked:
            message = json.loads(line)
            if "run" in message:
                self.stop.clear()
                self.jobs.put(message["run"])
            else:
                self.stop.set()
        os._exit(0)  # the worker is gone, whatever we are doing

    def _live(self) -> None:
        """Tell every second that this process is not stopped, and how much it works."""
        while True:
            self.tell("alive", computed=time.process_time(), moved=_blocks_moved())
            time.sleep(_BEAT_S)

    def tell(self, event: str, **values: Any) -> None:
        """Send a message to the worker."""
        with self._telling:
            self._answers.write(json.dumps({"event": event, **values}) + "\n")
            self._answers.flush()

    def progress(self, frames: int, expected: int | None) -> None:
        """Callback of the pipeline; ends the run when the worker asks for it."""
        if self.stop.is_set():
            raise _Stopped
        self.tell("progress", frames=frames, expected=expected)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the worker until it closes the line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("config", "device", "weights"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--engine-weights", type=Path)
    arguments = parser.parse_args(argv)
    _belong_to_worker()
    log_as_json(logging.getLogger(), os.environ.get("LIPSYNC_LOG_LEVEL", "INFO"))
    line = _Line()
    try:
        run = _loaded(arguments)
    except InputError as error:
        line.tell("refused", sentence=str(error), code=error.code)
        return 2
    line.tell("ready")
    while True:
        _serve(line, line.jobs.get(), run)


def _loaded(arguments: argparse.Namespace) -> Any:
    """Load the networks; returns a function that runs one job."""
    from language_processor import SpokenText
    from pipeline import LipSyncPipeline  # takes seconds, after the line is open
    from pipeline.engine_choice import with_engine_weights
    from pipeline.options import Options
    from pipeline.preview import Preview
    from serving.jobs.provenance import sign
    from serving.jobs.setup import from_environment, resolved
    from serving.jobs.track_runs import TrackRuns
    from utils.config import load_config
    from utils.helpers import resolve_device

    config = load_config(arguments.config, from_environment())
    config = with_engine_weights(config, arguments.engine_weights)
    inference = config.inference.model_copy(update={"weights_dir": Path(arguments.weights)})
    service = config.service.model_copy(update=resolved(config.service))
    config = config.model_copy(update={"inference": inference, "media": service.media})
    pipeline = LipSyncPipeline.load(config, resolve_device(arguments.device))
    tracks = TrackRuns(config, arguments.device)

    def run(job: dict[str, Any], line: _Line) -> dict[str, Any]:
        if "track" in job:
            return tracks.run(job, line.progress)
        video, output = Path(job["video"]), Path(job["output"])
        audio, text = job["audio"] and Path(job["audio"]), job.get("text")
        spoken = text and SpokenText(text, job["lang"], job["voice"], job["speed"], job.get("expected"))
        preview = Preview(output.with_name(PREVIEW), service.preview_s, service.preview_px)
        subtitles = output.with_name(SUBTITLES) if job.get("srt") else None
        options, further = Options(**job["options"]), {"text": spoken, "preview": preview, "subtitles": subtitles}
        mouths = job.get("sprites") and Path(job["sprites"])
        made = pipeline.run(video, audio, output, options, line.progress, mouths=mouths, **further)
        sign(output, service)
        return _told(made)

    return run


def _told(made: Summary) -> dict[str, Any]:
    """What is kept of a run's summary: all but where the file lay, in words that clients of the API know."""
    summary = asdict(made) | {"left_as_they_were": made.left_as_they_were()}
    del summary["output"]
    summary["notes"] = [in_api_terms(note) for note in made.notes]
    if made.adaptation is not None:
        summary["adaptation"]["sentence"] = made.adaptation.sentence()
    return summary


def _serve(line: _Line, job: dict[str, Any], run: Any) -> None:
    try:
        line.tell("done", summary=run(job, line))
    except _Stopped:
        line.tell("stopped")
    except InputError as error:
        line.tell("refused", sentence=_for_the_client(str(error), job), code=error.code)
    except Problem as error:
        line.tell("refused", sentence=_for_the_client(str(error), job), code=error.name)
    except Exception as error:  # noqa: BLE001 - the job fails, the runner serves the next one
        _LOG.exception("job broke", extra={"job": Path(job["output"]).parent.name.partition("-")[0]})
        sentence, code = f"unexpected error: {type(error).__name__}", "internal"
        if is_disk_full(error):
            sentence, code = "The disk of the server is full; try again later.", "disk-full"
        line.tell("broken", sentence=sentence, code=code)


def _for_the_client(sentence: str, job: dict[str, Any]) -> str:
    """The sentence with the fields of the API in it instead of our paths and the command line's options."""
    for name in ("video", "audio", "sprites", "output"):
        if job.get(name):
            sentence = sentence.replace(job[name], f"{name}_file")
            sentence = sentence.replace(str(Path(job[name]).parent) + os.sep, "")
    return in_api_terms(sentence)


if __name__ == "__main__":
    sys.exit(main())
