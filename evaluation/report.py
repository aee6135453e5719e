"""The report: one HTML file with tables, plots and pictures inside, which opens by double click without a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from datetime import datetime
from html import escape

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.run import ADAPTED, FROZEN, NEW, RECODED, UNTOUCHED, Scored
from evaluation.scores import REAL, TOLERANCE
from evaluation.sync import JUDGE_SHIFT
from evaluation.totals import BASELINES, DEFINITIONS, TITLES, Summary, notes, table_cells

_COLOURS = {REAL: "#444444", RECODED: "#a8a8a8", UNTOUCHED: "#8fb3d9", FROZEN: "#d99a6c", ADAPTED: "#7a4fa3"}
_METHOD_COLOUR = "#2a7f62"
_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>{style}</style></head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: middle; }
th { font-weight: 600; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; white-space: nowrap; }
tr.method td { font-weight: 600; background: #eef7f2; }
.scroll { overflow-x: auto; }
figure { margin: 0; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
.plots svg { max-width: 100%; height: auto; }
.sheet img { display: block; width: 768px; max-width: 60vw; }
.small { color: #666; font-size: 13px; }
"""


def as_html(summary: Summary, scored: list[Scored], command: str) -> str:
    """The whole report.

    Args:
        summary: of all clips.
        scored: the clips.
        command: that made it, shown at its head.
    """
    used = [s for s in scored if s.left_out is None]
    parts = [
        *(_mode_section(summary, used, mode) for mode in summary.modes),
        _definitions(),
        "<h2>Pictures</h2>",
        *(_sheet(s) for s in used if s.strips),
        _clip_table(used),
        "".join(f"<p>Left out: {escape(sentence)}</p>" for sentence in summary.left_out),
    ]
    return html_page("Lip-sync scores", command, parts)


def html_page(title: str, command: str, parts: list[str]) -> str:
    """A page of its own: when and by which command it was made, then its parts (HTML)."""
    made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    head = f"<p class='small'>{escape(made)} · <code>{escape(command)}</code></p>"
    return _PAGE.format(title=escape(title), style=_STYLE, body="\n".join([head, *parts]))


def _mode_section(summary: Summary, used: list[Scored], mode: str) -> str:
    table = summary.modes[mode]
    clips = [s for s in used if mode in s.modes]
    size = f"{len(clips)} clips, {summary.people} people"
    plots = "".join(f"<figure>{plot}</figure>" for plot in _plots(clips, mode))
    said = "".join(f"<li>{escape(note)}</li>" for note in notes(summary, mode))
    cells = html_table(table_cells(table))
    return (
        f"<h2>{escape(TITLES[mode])}</h2><p>{size}</p>{cells}<ul>{said}</ul><div class='plots'>{plots}</div>"
    )


def html_table(cells: list[list[str]]) -> str:
    """A table of a head line and lines; those that are no baseline stand out."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in cells[0])
    rows = []
    for line in cells[1:]:
        kind = "" if line[0] in BASELINES else " class='method'"
        rows.append(f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>")
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _definitions() -> str:
    items = "".join(f"<li><b>{escape(name)}</b>: {escape(text)}</li>" for name, text in DEFINITIONS.items())
    return f"<h2>What is measured</h2><ul>{items}</ul>"


def _sheet(scored: Scored) -> str:
    speech = f", new speech from {scored.job.speech.name}" if scored.job.speech else ""
    rows = []
    for name, jpeg in scored.strips.items():
        mode, version = name.split(": ", 1)
        row = scored.modes[mode].rows[version]
        lmd = f" · LMD {100 * row['lmd']:.1f} %" if "lmd" in row else ""
        score = f"confidence {row['confidence']:.2f} · offset {row['offset']:+.0f}{lmd}"
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        label = f"{escape(name)}<br><span class='small'>{score}</span>"
        rows.append(f"<tr><td>{label}</td><td><img src='{source}' alt=''></td></tr>")
    title = f"{scored.job.clip.video.name} ({scored.job.clip.person}){speech}"
    return f"<h3>{escape(title)}</h3><table class='sheet'>{''.join(rows)}</table>"


def _clip_table(used: list[Scored]) -> str:
    """Every clip's scores: of the real video, and of the versions that are no baseline."""
    names, numbers = ["clip", "person", "comparison", "version", "frames"], ["confidence", "distance", "offset"]
    cells = [[*names, "LMD, %", "SSIM", *numbers]]
    for s in used:
        for mode, compared in s.modes.items():
            for version, row in compared.rows.items():
                if version not in BASELINES or version == REAL:
                    lmd = f"{100 * row['lmd']:.2f}" if "lmd" in row else ""
                    ssim = f"{row['ssim']:.3f}" if "ssim" in row else ""
                    sync = [f"{row['confidence']:.3f}", f"{row['distance']:.3f}", f"{row['offset']:+.0f}"]
                    name = [s.job.clip.video.name, s.job.clip.person, mode, version]
                    cells.append([*name, str(compared.frames), lmd, ssim, *sync])
    return f"<h2>Every clip</h2><details><summary>{len(used)} clips</summary>{html_table(cells)}</details>"


def _plots(clips: list[Scored], mode: str) -> list[str]:
    versions = list(dict.fromkeys(name for s in clips for name in s.modes[mode].rows))

    def of(key: str, scale: Callable[[Scored], float] = lambda s: 1.0) -> dict[str, list[float]]:
        rows = {v: [(s, s.modes[mode].rows[v]) for s in clips if v in s.modes[mode].rows] for v in versions}
        found = {v: [scale(s) * row[key] for s, row in pairs if key in row] for v, pairs in rows.items()}
        return {v: numbers for v, numbers in found.items() if numbers}

    jerks, lmd = of("jerk", lambda s: 1 / max(s.modes[mode].rows[REAL]["jerk"], 1e-9)), of("lmd", lambda s: 100.0)
    plots = [
        _figure("Offset found by the judge, frames", lambda axes: _offsets(axes, of("offset"))),
        _figure("Sync confidence of each clip", lambda axes: _boxes(axes, of("confidence"))),
    ]
    if mode != NEW:
        plots.append(_figure("LMD of each clip, % of eye distance", lambda axes: _boxes(axes, lmd)))
        plots.append(_figure("SSIM of each clip", lambda axes: _boxes(axes, of("ssim"))))
    plots.append(_figure("Jerk of each clip's lips, × real", lambda axes: _boxes(axes, jerks)))
    plots.append(_figure("Warp error of each clip, levels", lambda axes: _boxes(axes, of("warp_error"))))
    return plots


def _figure(title: str, draw: Callable[[Axes], None]) -> str:
    """One plot as SVG that needs no other file."""
    with rc_context({"svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        axes.set_title(title, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        text = io.StringIO()
        figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def _boxes(axes: Axes, values: dict[str, list[float]]) -> None:
    """A box for each version: quarters, whiskers at 5 and 95 % of the clips, dots beyond."""
    boxes = axes.boxplot(list(values.values()), orientation="horizontal", widths=0.6, patch_artist=True, whis=(5, 95))
    for name, box in zip(values, boxes["boxes"], strict=True):
        box.set(facecolor=_COLOURS.get(name, _METHOD_COLOUR), alpha=0.75)
    for line in boxes["medians"]:
        line.set_color("black")
    for dots in boxes["fliers"]:
        dots.set(marker=".", markersize=3)
    axes.set_yticks(range(1, len(values) + 1), list(values))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)


def _offsets(axes: Axes, values: dict[str, list[float]]) -> None:
    """Share of the clips at each offset, one line a version."""
    places = np.arange(-JUDGE_SHIFT, JUDGE_SHIFT + 1)
    axes.axvspan(-TOLERANCE - 0.5, TOLERANCE + 0.5, color=_METHOD_COLOUR, alpha=0.12, linewidth=0)
    for name, found in values.items():
        share = [100 * np.mean(np.array(found) == place) for place in places]
        colour = _COLOURS.get(name, _METHOD_COLOUR)
        axes.plot(places, share, marker="o", markersize=3, linewidth=1.2, label=name, color=colour)
    axes.set_xticks(places[::2])
    axes.set_ylabel("% of clips")
    axes.legend(frameon=False, fontsize=8)
