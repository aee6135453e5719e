"""Live2D's motion3.json (CubismSpecs, FileFormats/motion3.json.md): the mouth's two standard parameters."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.track import Track

_TOLERANCE = 0.01  # of a parameter, by which keys that are left out may miss the curve


def write_motion(track: Track, path: Path) -> None:
    """ParamMouthOpenY (0 closed to 1 open) and ParamMouthForm (-1 rounded to 1 broad), as linear segments."""
    curves = {"ParamMouthOpenY": track.curves.opening, "ParamMouthForm": track.curves.width}
    times = np.append(track.times, max(track.duration, track.times[-1] + 1e-3))
    written, points = [], 0
    for name, values in curves.items():
        held = np.append(np.asarray(values, np.float64), values[-1])
        keys = thinned(times, held, _TOLERANCE)
        points += len(keys)
        flat = [round(float(times[0]), 4), round(float(held[0]), 4)]
        for key in keys[1:]:
            flat += [0, round(float(times[key]), 4), round(float(held[key]), 4)]
        written.append({"Target": "Parameter", "Id": name, "Segments": flat})
    meta = {
        "Duration": round(float(times[-1]), 4),
        "Fps": track.fps,
        "Loop": False,
        "AreBeziersRestricted": True,
        "CurveCount": len(written),
        "TotalSegmentCount": points - len(written),
        "TotalPointCount": points,
        "UserDataCount": 0,
        "TotalUserDataSize": 0,
    }
    path.write_text(json.dumps({"Version": 3, "Meta": meta, "Curves": written}, indent=1), encoding="utf-8")


def thinned(times: np.ndarray, values: np.ndarray, tolerance: float) -> list[int]:
    """Numbers of the keys between which straight lines miss no value by more than the tolerance.

    Ramer 1972, Douglas and Peucker 1973, by the vertical distance; the first and the last key stay.

    Args:
        times: (N,) rising.
        values: (N,).
        tolerance: in units of the values.
    """
    kept, open_ = {0, len(times) - 1}, [(0, len(times) - 1)]
    while open_:
        first, last = open_.pop()
        if last - first < 2:
            continue
        inside = np.arange(first + 1, last)
        line = np.interp(times[inside], times[[first, last]], values[[first, last]])
        off = np.abs(values[inside] - line)
        worst = int(off.argmax())
        if off[worst] > tolerance:
            middle = int(inside[worst])
            kept.add(middle)
            open_ += [(first, middle), (middle, last)]
    return sorted(kept)
