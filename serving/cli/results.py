"""What became of each row of a list, in one file beside it: `jobs.csv` -> `jobs.results.json`, for other programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from utils.helpers import atomic_path


class Results:
    """The file; it is complete after each row, so a list that was stopped has its results so far.

    Args:
        table: the list. Files are named as seen from its folder.
    """

    def __init__(self, table: Path) -> None:
        self.path = table.with_name(f"{table.stem}.results.json")
        self._table, self._rows = table, []

    def add(self, line: int, output: Path, status: str, seconds: float, told: Mapping[str, object]) -> None:
        """Note a row.

        Args:
            line: where the row begins, counted from 1.
            output: what it writes.
            status: done, skipped or failed.
            seconds: that it took.
            told: what else is known of the result, or "error": a sentence.
        """
        named = Path(os.path.relpath(output.absolute(), self._table.absolute().parent)).as_posix()
        self._rows.append({"line": line, "output": named, "status": status, "seconds": round(seconds, 2), **told})
        with atomic_path(self.path) as temporary:
            text = json.dumps({"list": self._table.name, "rows": self._rows}, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
