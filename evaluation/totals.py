"""Scores of all clips, summed up: the totals of each version, as numbers and as the table that people read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from data.preprocess import FPS
from evaluation.features import FEATURES
from evaluation.run import ADAPTED, FROZEN, GIVEN, NEW, OURS, OWN, RECODED, UNTOUCHED, Scored
from evaluation.scores import REAL, Row
from evaluation.sync import JUDGE_SHIFT
from utils import metrics
from utils.helpers import InputError

BASELINES = (REAL, RECODED, UNTOUCHED, FROZEN)
TITLES = {
    OWN: "Own speech (self-reenactment: the result should be the real video)",
    NEW: "New speech (another person's; the real video has its own)",
    GIVEN: "Given results",
}
DEFINITIONS = {
    "real": "the real video with its own sound",
    "real, encoded again": "the real video through the encoder of the results: the noise floor of every figure",
    "untouched": "the real picture with the new sound",
    "frozen mouth": "the mouth window nearest to the clip's resting mouth pasted into every frame",
    "LMD": "mean distance of the 40 lip points of the face mesh from the real video's, on the aligned face, in % "
    "of the distance between the eyes",
    "SSIM, PSNR": "of the aligned 160x160 mouth window; SSIM of its brightness; PSNR in dB",
    "perceptual": f"distance of mouth windows in {FEATURES} of four stages with equal weights; not LPIPS",
    "Fréchet": f"distance of all clips' mouth windows in averaged {FEATURES} (320 numbers); not FID, and only "
    "comparable between rows of one run",
    "identity": "cosine of dlib's face descriptors: second half of the clip against the real video's first half",
    "LSE-C, LSE-D, ±1 frame": "sync confidence, sync distance and offset by this project's SyncNet judge (16-frame "
    f"windows, ±{JUDGE_SHIFT} frames), which never supervised the generator; the field's own figures need "
    "--public_syncnet and do not compare with these",
    "jerk": "third difference of the aligned lip points (smoothed by 30 ms), relative to the real video's",
    "warp error": "grey levels between a frame and the next one warped back by DIS optical flow, mouth region; flow of "
    "the real video where all versions should move alike (own speech), else of each version itself",
}
FOOTNOTE = (
    f"LMD in % of the distance between the eyes; perceptual and Fréchet distance in {FEATURES} (not LPIPS, not FID); "
    "identity by dlib's descriptor; LSE-C, LSE-D and offset by this project's SyncNet judge."
)
_DASH = "–"


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        key: of the totals.
        title: with the unit; ↑ more is better, ↓ less is better.
        text: turns the value into text.
    """

    key: str
    title: str
    text: Callable[[float], str]


COLUMNS = (
    Column("lmd", "LMD, % ↓", lambda v: f"{100 * v:.2f}"),
    Column("ssim", "SSIM ↑", lambda v: f"{v:.3f}"),
    Column("psnr", "PSNR ↑", lambda v: f"{v:.1f}"),
    Column("perceptual", "perceptual ↓", lambda v: f"{v:.4f}"),
    Column("frechet", "Fréchet ↓", lambda v: f"{v:.2f}"),
    Column("identity", "identity ↑", lambda v: f"{v:.3f}"),
    Column("confidence", "LSE-C ↑", lambda v: f"{v:.3f}"),
    Column("distance", "LSE-D ↓", lambda v: f"{v:.3f}"),
    Column("in_sync", "±1 frame, % ↑", lambda v: f"{100 * v:.1f}"),
    Column("public_confidence", "public LSE-C ↑", lambda v: f"{v:.2f}"),
    Column("public_distance", "public LSE-D ↓", lambda v: f"{v:.2f}"),
    Column("public_in_sync", "public ±1 frame, % ↑", lambda v: f"{100 * v:.1f}"),
    Column("jerk_of_real", "jerk, × real", lambda v: f"{v:.2f}"),
    Column("warp_error", "warp error ↓", lambda v: f"{v:.2f}"),
)
_RATIOS = ("confidence", "identity", "jerk", "warp_error")


def totals(scored: list[Scored], mode: str) -> dict[str, Row]:
    """The means over clips of one comparison, version by version.

    Beside the metrics there are ``clips``, ``frechet`` (all clips together), the ratio to the real video for some
    metrics (``..._of_real``), and for results ``lmd_of_frozen``. A version that only some clips have is followed by
    "ours" on the same clips.
    """
    clips = [s for s in scored if mode in s.modes]
    versions = list(dict.fromkeys(name for s in clips for name in s.modes[mode].rows))
    table = {name: _total([s for s in clips if name in s.modes[mode].rows], mode, name) for name in versions}
    adapted = [s for s in clips if ADAPTED in s.modes[mode].rows]
    if adapted and len(adapted) < len(clips):
        del table[ADAPTED]
        table[f"{OURS}, {len(adapted)} longest clips"] = _total(adapted, mode, OURS)
        table[f"{ADAPTED}, same clips"] = _total(adapted, mode, ADAPTED)
    return table


def _total(clips: list[Scored], mode: str, name: str) -> Row:
    rows, real = ([s.modes[mode].rows[version] for s in clips] for version in (name, REAL))
    total = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if not key.endswith("offset")}
    features = [np.concatenate([s.modes[mode].features[version] for s in clips]) for version in (name, REAL)]
    if name != REAL:
        total["frechet"] = metrics.frechet_distance(*features)
    for key in _RATIOS:
        total[f"{key}_of_real"] = total[key] / max(float(np.mean([row[key] for row in real])), 1e-9)
    if "lmd" in total and name != RECODED:
        frozen = float(np.mean([s.modes[mode].rows[FROZEN]["lmd"] for s in clips]))
        total["lmd_of_frozen"] = total["lmd"] / max(frozen, 1e-9)
    return total | {"clips": len(clips)}


def stranger_identity(scored: list[Scored]) -> float | None:
    """Mean cosine of the face descriptors of different people: what an identity of nothing but a face is worth."""
    by_person: dict[str, list[np.ndarray]] = {}
    for s in scored:
        if s.identity is not None:
            by_person.setdefault(s.job.clip.person, []).append(s.identity)
    faces = [np.mean(found, axis=0) for found in by_person.values()]
    pairs = [metrics.cosine(a, b) for a, b in combinations(faces, 2)]
    return float(np.mean(pairs)) if pairs else None


def table_cells(table: dict[str, Row]) -> list[list[str]]:
    """The totals of one comparison as text: a head line, then one line a version; only columns that have a value."""
    columns = [c for c in COLUMNS if any(c.key in row for row in table.values())]
    cells = [["", *(c.title for c in columns)]]
    for name, row in table.items():
        cells.append([name, *(c.text(row[c.key]) if c.key in row else _DASH for c in columns)])
    return cells


def markdown(table: dict[str, Row]) -> str:
    """The totals of one comparison in Markdown."""
    return markdown_table(table_cells(table))


def markdown_table(cells: list[list[str]]) -> str:
    """A head line and lines as a Markdown table that is also readable as it is."""
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Summary:
    """What all clips together say.

    Attributes:
        modes: comparison -> version -> totals.
        clips, people: that were scored.
        frames: of all clips together.
        strangers: see `stranger_identity`.
        adapted: comparison -> clips in which adaptation changed something.
        left_out: a sentence for each clip that could not be used.
    """

    modes: dict[str, dict[str, Row]]
    clips: int
    people: int
    frames: int
    strangers: float | None
    adapted: dict[str, int]
    left_out: list[str]


def summarise(scored: list[Scored]) -> Summary:
    """Sum up the outcomes of all clips.

    Raises:
        InputError: every clip was left out.
    """
    used = [s for s in scored if s.left_out is None]
    left_out = [s.left_out for s in scored if s.left_out is not None]
    if not used:
        raise InputError(f"No clip could be scored; the first one: {left_out[0]}")
    modes = list(dict.fromkeys(mode for s in used for mode in s.modes))
    return Summary(
        modes={mode: totals(used, mode) for mode in modes},
        clips=len(used),
        people=len({s.job.clip.person for s in used}),
        frames=sum(max(c.frames for c in s.modes.values()) for s in used),
        strangers=stranger_identity(used),
        adapted={
            mode: sum(not s.adaptation[mode]["skipped"] for s in used if mode in s.adaptation)
            for mode in modes
            if any(mode in s.adaptation for s in used)
        },
        left_out=left_out,
    )


def notes(summary: Summary, mode: str) -> list[str]:
    """Sentences under the table of a comparison: how the methods stand to the real video and to the baselines."""
    table = summary.modes[mode]
    sentences = []
    for name in (n for n in table if n not in BASELINES):
        row = table[name]
        parts = [f"sync confidence {100 * row['confidence_of_real']:.0f} % of the real video's"]
        if "lmd_of_frozen" in row:
            side = "below" if row["lmd_of_frozen"] <= 1 else "above"
            parts.append(f"LMD {100 * abs(1 - row['lmd_of_frozen']):.0f} % {side} the frozen mouth's")
        parts.append(f"identity {row['identity_of_real']:.3f} of the real-to-real figure")
        parts.append(f"jerk {row['jerk_of_real']:.2f} times the real video's")
        sentences.append(f"{name[0].upper()}{name[1:]}: {', '.join(parts)}.")
    if RECODED in table:
        row = table[RECODED]
        sentences.append(
            f"Noise floor (the real video encoded again and measured again): LMD {100 * row['lmd']:.2f} % of the eye "
            f"distance, SSIM {row['ssim']:.3f}, PSNR {row['psnr']:.1f} dB."
        )
    if mode in summary.adapted:
        sentences.append(f"Adaptation changed something in {summary.adapted[mode]} clips and skipped the others.")
        if mode == OWN:
            sentences.append("Adaptation learns from the clips and sounds of this table; new speech is its fair test.")
    if summary.strangers is not None:
        sentences.append(f"Two different people have an identity of {summary.strangers:.3f}.")
    return sentences


def as_text(summary: Summary) -> str:
    """Tables and notes of all comparisons in Markdown."""
    parts = []
    for mode, table in summary.modes.items():
        seconds = summary.frames / FPS
        parts.append(f"### {TITLES[mode]}: {table[REAL]['clips']} clips, {summary.people} people, {seconds:.0f} s")
        parts += [markdown(table), "\n".join(f"- {note}" for note in notes(summary, mode))]
    parts.append(FOOTNOTE)
    parts += [f"Left out: {sentence}" for sentence in summary.left_out]
    return "\n\n".join(parts) + "\n"


def as_json(summary: Summary, scored: list[Scored]) -> dict[str, Any]:
    """Everything as plain data: totals, and the scores of every clip."""
    clips = [
        {
            "clip": s.job.clip.video.name,
            "person": s.job.clip.person,
            "speech": s.job.speech and s.job.speech.name,
            "left_out": s.left_out,
            "adaptation": s.adaptation,
            "scores": {mode: {"frames": c.frames, "rows": c.rows} for mode, c in s.modes.items()},
        }
        for s in scored
    ]
    return {"definitions": DEFINITIONS, "total": asdict(summary), "clips": clips}
