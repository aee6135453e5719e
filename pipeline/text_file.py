"""A text in a file, plain or as subtitles; light, see `pipeline.tracks.options`."""

from __future__ import annotations

import codecs
from pathlib import Path

from utils.helpers import InputError
from voices.dubbing import read_script

ENDINGS = (".txt", ".srt", ".vtt", ".ass", ".ssa")
"""Of the names that such files usually have; all but the first are subtitles."""

_MAX_BYTES = 10 * 2**20


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 with its mark at the start (as Windows' editors write it).

    Raises:
        InputError: it is missing, not text, or too large, or is called subtitles and holds none.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"The text file {path} is larger than {_MAX_BYTES // 2**20} MB; give a smaller one.")
        data = path.read_bytes()
        text = data.decode("utf-16" if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")
    except OSError as error:
        raise InputError(f"Cannot read the text file {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The text file {path} is not UTF-8 text; save it as UTF-8.") from error
    if path.suffix.lower() in ENDINGS[1:] and not read_script(text):
        raise InputError(f"The file {path} holds no subtitles that can be read: .srt, .vtt and .ass are understood.")
    return text
