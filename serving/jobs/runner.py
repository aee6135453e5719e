"""A process that does nothing but run the pipeline, one job after another, for the worker that started it.

It is apart from the worker so that a job can be stopped at any moment, and so that a file that brings a decoder down
brings down nothing else. Worker and runner talk in lines of JSON over the runner's standard input and output:

    to the runner    {"run": {"video": path, "audio": path | null, "output": path, "options": {...}, ...}}
                     {"stop": true}
    from it          {"event": "ready"}, {"event": "progress", "frames": n, "expected": n | null},
                     {"event": "done", "summary": {...}}, {"event": "refused", "sentence": ...},
                     {"event": "stopped"}, {"event": "broken", "sentence": ...}

When its worker dies, its standard input ends and so does it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from serving.problems import Problem
from utils.disk import is_disk_full
from utils.helpers import InputError

PREVIEW = "preview.mp4"
"""Name beside the output of its first seconds; it is there as soon as they are made."""

_LOG = logging.getLogger("lipsync.runner")


class _Stopped(Exception):
    """The worker wants no more of this job."""


class _Line:
    """The connection to the worker."""

    def __init__(self, answers: TextIO):
        self.jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self.stop = threading.Event()
        self._answers = answers
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in sys.stdin:
            message = json.loads(line)
            if "run" in message:
                self.stop.clear()
                self.jobs.put(message["run"])
            else:
                self.stop.set()
        os._exit(0)  # the worker is gone, whatever we are doing

    def tell(self, event: str, **values: Any) -> None:
        """Send a message to the worker."""
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
    arguments = parser.parse_args(argv)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between our lines
    line = _Line(answers)
    try:
        run = _loaded(arguments)
    except InputError as error:
        line.tell("refused", sentence=str(error))
        return 2
    line.tell("ready")
    while True:
        _serve(line, line.jobs.get(), run)


def _loaded(arguments: argparse.Namespace) -> Any:
    """Load the networks; returns a function that runs one job."""
    from language_processor import SpokenText
    from pipeline import LipSyncPipeline  # takes seconds, after the line is open
    from pipeline.options import Options
    from pipeline.preview import Preview
    from serving.jobs.provenance import sign
    from serving.jobs.setup import from_environment, resolved
    from utils.config import load_config
    from utils.helpers import resolve_device

    config = load_config(arguments.config, from_environment())
    inference = config.inference.model_copy(update={"weights_dir": Path(arguments.weights)})
    service = config.service.model_copy(update=resolved(config.service))
    config = config.model_copy(update={"inference": inference, "media": service.media})
    pipeline = LipSyncPipeline.load(config, resolve_device(arguments.device))

    def run(job: dict[str, Any], line: _Line) -> dict[str, Any]:
        video, output = Path(job["video"]), Path(job["output"])
        audio, text = job["audio"] and Path(job["audio"]), job.get("text")
        spoken = text and SpokenText(text, job["lang"], job["voice"], job["speed"], job.get("expected"))
        preview = Preview(output.with_name(PREVIEW), service.preview_s, service.preview_px)
        made = pipeline.run(
            video, audio, output, Options(**job["options"]), line.progress, text=spoken, preview=preview
        )
        summary = asdict(made)
        sign(output, service)
        del summary["output"]
        return summary | {"left_as_they_were": made.left_as_they_were()}

    return run


def _serve(line: _Line, job: dict[str, Any], run: Any) -> None:
    try:
        line.tell("done", summary=run(job, line))
    except _Stopped:
        line.tell("stopped")
    except (InputError, Problem) as error:
        line.tell("refused", sentence=_without_paths(str(error), job))
    except Exception as error:  # noqa: BLE001 - the job fails, the runner serves the next one
        _LOG.exception("job broke")
        sentence = f"unexpected error: {type(error).__name__}"
        line.tell(
            "broken", sentence="The disk of the server is full; try again later." if is_disk_full(error) else sentence
        )


def _without_paths(sentence: str, job: dict[str, Any]) -> str:
    """Our folders are none of the client's business."""
    for name in ("video", "audio", "output"):
        if job[name]:
            sentence = sentence.replace(str(Path(job[name]).parent) + os.sep, "")
    return sentence


if __name__ == "__main__":
    sys.exit(main())
