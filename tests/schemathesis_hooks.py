"""What schemathesis cannot make up by itself: pictures and sounds. Loaded by its command line, see test_openapi.py.

Half of the requests that fit the schema are given a real picture and a real sound, and options with which a job is
done in a moment. The other half stays as it was made up.
"""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis.core.parameters import ParameterLocation

_MEDIA = Path(os.environ["LIPSYNC_TEST_MEDIA"])
_FILES = {"video_file": (_MEDIA / "portrait.png").read_bytes(), "audio_file": (_MEDIA / "speech.wav").read_bytes()}
_QUICK = {"steps": 1, "lang": "auto", "face": "largest"}
_TURN = itertools.count()


def _fits(case: Any) -> bool:
    """The request and its body were made up to fit the schema."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return False
    body = case.meta.components.get(ParameterLocation.BODY)
    return body is not None and body.mode.is_positive


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    body = case.body
    if _fits(case) and isinstance(body, dict) and next(_TURN) % 2:
        for name in ("text_input", "voice", "webhook_url", "adapt"):
            body.pop(name, None)
        body |= _FILES | {name: value for name, value in _QUICK.items() if name in body}
