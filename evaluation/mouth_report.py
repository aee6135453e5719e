"""The measures of mouths as a table, as JSON and as a page with contact sheets at full size."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from evaluation.mouth_run import Measured
from evaluation.report import html_page, html_table
from evaluation.totals import markdown_table
from utils.helpers import InputError

MEAN = "mean"
_DASH = "–"


@dataclass(frozen=True)
class Measure:
    """A measure: its key, its title in the table, what is wanted, what it is, and how its value is written."""

    key: str
    title: str
    wanted: str
    definition: str
    text: Callable[[float], str] = "{:.2f}".format


_PERCENT: Callable[[float], str] = "{:.0%}".format
MEASURES = (
    Measure("opening_spread", "opening, × real", "0.9 to 1.15", "spread over time of the gap between the inner lips"),
    Measure("width_spread", "width, × real", "0.85 to 1.15", "spread of the distance between the corners of the mouth"),
    Measure("correlation", "correlation", "0.75", "of the opening with the real one's, own speech"),
    Measure("leak_spread", "leak: spread", "at most 0.1", "spread of the opening with a silent sound"),
    Measure("leak", "leak: silence", "at most 0.2", "with a silent sound: correlation with the old mouth"),
    Measure("leak_other", "leak: speech", "at most 0.2", "with another's speech: correlation with the old mouth"),
    Measure("rest", "rest", "at most 1.3", "median opening in silence, in parts of the person's closed lips (5th "
            "percentile of the real opening, at least 1 % of the eye distance)"),
    Measure("detail", "detail, × real", "0.95", "what a blur by 1.5 % of the eye distance (at least 1 px) takes from a "
            "box of 0.8 by 0.55 eye distances around the mouth, root mean square"),
    Measure("teeth", "teeth, × real", "1", "share of pixels between open lips that are at least 0.7 times as light as "
            "the skin and less red than it; only clips whose real mouth shows 2 % or more"),
    Measure("closures", "p b m closed", "80 %", "share of p, b, m at which the lips come within the lowest fifth of "
            "the way from the person's closed lips to widely open ones (5th to 95th percentile of the real video)",
            _PERCENT),
    Measure("real_closures", "real", "", "the same of the real video", _PERCENT),
    Measure("vowels_open", "vowels open", "", "share of vowels at which they pass 35 % of that way", _PERCENT),
    Measure("real_vowels_open", "real", "", "the same of the real video", _PERCENT),
    Measure("closed_to_open", "pbm / vowels", "as real", "mean opening at p, b, m in parts of that at vowels"),
    Measure("real_closed_to_open", "real", "", "the same of the real video"),
    Measure("portrait_opening_spread", "portrait: opening", "0.8", "spread of the opening of a still picture (the "
            "clip's most closed lips) with the clip's speech, in parts of the real one's"),
    Measure("portrait_width_spread", "portrait: width", "0.8", "the same of the width"),
    Measure("portrait_correlation", "portrait: correlation", "0.75", "of its opening with the real one's"),
    Measure("portrait_detail", "portrait: detail", "0.95", "its fine detail, in parts of the real video's"),
)  # fmt: skip


def means(measured: list[Measured]) -> dict[str, float]:
    """The mean of each measure over the clips that have it.

    Raises:
        InputError: every clip was left out.
    """
    rows = [m.row for m in measured if m.left_out is None]
    if not rows:
        raise InputError(f"No clip could be measured; the first one: {measured[0].left_out}")
    found = {m.key: [row[m.key] for row in rows if m.key in row] for m in MEASURES}
    return {key: float(np.mean(values)) for key, values in found.items() if values}


def mouth_cells(measured: list[Measured]) -> list[list[str]]:
    """A head line, a line for each clip, their mean, and what is wanted; only measures that have a value."""
    total = means(measured)
    columns = [m for m in MEASURES if m.key in total]
    cells = [["clip", *(m.title for m in columns)]]
    named = [(m.job.clip.video.stem, m.row) for m in measured if m.left_out is None]
    for name, row in [*named, (MEAN, total)]:
        cells.append([name, *(m.text(row[m.key]) if m.key in row else _DASH for m in columns)])
    return [*cells, ["wanted", *(m.wanted for m in columns)]]


def mouth_text(measured: list[Measured]) -> str:
    """The table in Markdown, and what was left out."""
    return "\n\n".join([markdown_table(mouth_cells(measured)), *_remarks(measured)]) + "\n"


def _remarks(measured: list[Measured]) -> list[str]:
    """A sentence for each clip, and each portrait, that was left out."""
    clips = [f"Left out: {m.left_out}" for m in measured if m.left_out is not None]
    return clips + [f"Portrait of {m.job.clip.video.name}: {m.no_portrait}" for m in measured if m.no_portrait]


def mouth_json(measured: list[Measured]) -> str:
    """Everything as JSON: definitions, means, and the measures of every clip."""
    clips: list[dict[str, Any]] = [
        {
            "clip": m.job.clip.video.name,
            "person": m.job.clip.person,
            "speech": m.job.speech and m.job.speech.name,
            "left_out": m.left_out,
            "no_portrait": m.no_portrait,
            "measures": m.row,
        }
        for m in measured
    ]
    definitions = {m.key: m.definition for m in MEASURES}
    return json.dumps({"definitions": definitions, MEAN: means(measured), "clips": clips}, indent=1) + "\n"


def mouth_html(measured: list[Measured], command: str) -> str:
    """The page: table, definitions, and the mouths of every clip at full size.

    Args:
        measured: the clips.
        command: that made it, shown at its head.
    """
    items = "".join(f"<li><b>{escape(m.title)}</b> ({escape(m.key)}): {escape(m.definition)}</li>" for m in MEASURES)
    remarks = "".join(f"<p>{escape(remark)}</p>" for remark in _remarks(measured))
    body = [html_table(mouth_cells(measured)), remarks, f"<h2>What is measured</h2><ul>{items}</ul>"]
    body.append("<h2>Pictures</h2><p>The frames' own pixels, evenly spread over the clip.</p>")
    body += [_sheets(m) for m in measured if m.left_out is None]
    return html_page("Mouths", command, body)


def _sheets(measured: Measured) -> str:
    speech = f", another's speech from {measured.job.speech.name}" if measured.job.speech else ""
    rows = []
    for name, jpeg in measured.sheets.items():
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        rows.append(f"<p class='small'>{escape(name)}</p><div class='scroll'><img src='{source}' alt=''></div>")
    return f"<h3>{escape(measured.job.clip.video.name)}{escape(speech)}</h3>{''.join(rows)}"
