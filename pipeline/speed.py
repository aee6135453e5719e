"""How fast an engine draws on this computer: a short probe, kept for the next time."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.helpers import atomic_path, available_cores

if TYPE_CHECKING:
    from engines.base import Engine
    from faces.mouth_windows import MouthFrame

_FRAMES = 4
_FILE = "measured_speed.json"
_SAMPLE_RATE = 16000


def known_speed(name: str, folder: Path) -> float | None:
    """Frames per second of an engine as measured before on this computer; None: not yet."""
    return _read(folder).get(_key(name))


def measure_speed(engine: Engine, folder: Path) -> float:
    """Let an engine draw a few made-up frames and keep the result in `folder`.

    One and two steps are drawn; what more steps and guidance cost is reckoned from them.

    Returns:
        Frames per second of drawing with the engine's own steps and guidance, apart from faces and video.
    """
    speed = 1.0 / max(_seconds_per_frame(engine), 1e-9)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / _FILE) as path:
        measured = _read(folder) | {_key(engine.facts.name): speed}
        path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return speed


def _seconds_per_frame(engine: Engine) -> float:
    from engines.base import Style

    facts = engine.facts
    frames = [_frame(engine, index / 25) for index in range(min(facts.window, _FRAMES))]
    person, speech = engine.meet(frames[:1]), engine.hear(_noise())
    drawn = engine.painter(person, speech, Style(1, 1.0))(frames)  # the first time also loads and hears
    rendering = _timed(lambda: engine.render(frames, drawn))
    painting = _timed(lambda: engine.painter(person, speech, Style(1, 1.0))(frames))
    if facts.steps > 1:
        step = max(_timed(lambda: engine.painter(person, speech, Style(2, 1.0))(frames)) - painting, 0.0)
        passes = facts.steps * (1 if facts.guidance == 1.0 else 2)
        painting += step * (passes - 1)
    return (painting + rendering) / len(frames)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _frame(engine: Engine, seconds: float) -> MouthFrame:
    """A made-up frame: what is in it does not matter for the time."""
    from faces.alignment import STABLE, TEMPLATE
    from faces.mouth_windows import MouthFrame

    geometry, chance = engine.facts.geometry, np.random.default_rng(0)
    window = chance.integers(0, 256, (geometry.height, geometry.width, 3), np.uint8)
    points = chance.uniform(40, 120, (468, 2)).astype(np.float32)
    points[STABLE] = TEMPLATE[:, :2]
    pose = np.zeros(3, np.float32)
    return MouthFrame(None, seconds, (480, 480), 0, None, window, np.eye(2, 3, dtype=np.float32), points, pose)


def _noise() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, _SAMPLE_RATE).astype(np.float32)


def _key(name: str) -> str:
    return f"{name}, {platform.node()}, {platform.machine()}, {available_cores()} cores"


def _read(folder: Path) -> dict[str, float]:
    try:
        return dict(json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
