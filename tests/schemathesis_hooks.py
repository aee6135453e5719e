"""What schemathesis cannot make up by itself: pictures and sounds. Loaded by its command line, see test_openapi.py.

Half of the requests that fit the schema are given a real picture and a real sound, and options with which a job is
done in a moment. The other half stays as it was made up.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.generation.meta import TestPhase
from schemathesis.transport.serialization import Binary  # what counts as a "string" of the format "binary"

_MEDIA = Path(os.environ["LIPSYNC_TEST_MEDIA"])
_NAMES = {"video": "portrait.png", "audio": "speech.wav"}
_FILES = {f"{name}_file": Binary((_MEDIA / file).read_bytes()) for name, file in _NAMES.items()}
_ADDRESSES = {f"{name}_url": f"{os.environ['LIPSYNC_TEST_SHOP']}/{file}" for name, file in _NAMES.items()}
_QUICK = {"steps": 1, "lang": "auto", "face": "largest"}
_LEFT_OUT = (
    *("text_input", "voice", "webhook_url", "adapt", "srt", "engine", "layer", "erase"),
    *("video_url", "audio_url", "sprites_url", "sprites_file"),
)
_TURN = itertools.count()
_KEY = re.compile("[!-~]{1,200}")


def _fits(case: Any) -> bool:
    """The request was made up at random to fit the schema. Those of the phase "coverage" each have a fault that real
    files could hide, or none."""
    meta = case.meta
    return meta is not None and meta.generation.mode.is_positive and meta.phase.name != TestPhase.COVERAGE


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    if _KEY.fullmatch((case.headers or {}).get("Idempotency-Key", "")):  # the body of a known one is not looked at
        case.headers["Idempotency-Key"] = f"key-{next(_TURN)}"
    if isinstance(case.body, dict) and _fits(case) and next(_TURN) % 2:
        kept = {name: value for name, value in case.body.items() if name not in _LEFT_OUT}
        quick = {name: value for name, value in _QUICK.items() if name in kept}
        inputs = _ADDRESSES if case.media_type == "application/json" else _FILES
        case.body = kept | quick | inputs  # a new one: requests may share it
