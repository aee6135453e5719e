"""How fast an engine draws on this computer: a short probe, kept for the next time."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.helpers import atomic_path, available_cores

if TYPE_CHECKING:
    from engines.base import Engine
    from faces.mouth_windows import MouthFrame

_PROBE_S = 2.0  # about so long an engine is watched, beyond what its slowest single picture takes
_FILE = "measured_speed.json"
_SAMPLE_RATE = 16000


@dataclass(frozen=True)
class Pace:
    """How fast an engine draws on this computer, apart from faces and video.

    Attributes:
        rest_s: seconds for a picture without its passes through the network.
        pass_s: seconds for a pass; 0 where the engine makes but one.
        steps: that it makes where the user leaves that open.
        guidance: the same; a step takes two passes with it.
    """

    rest_s: float
    pass_s: float
    steps: int
    guidance: float

    def seconds(self, steps: int | None = None, guidance: float | None = None) -> float:
        """For a picture; None as the engine is used to, see `engines.base.Style`."""
        steps, guidance = (self.steps if steps is None else steps), self.guidance if guidance is None else guidance
        return self.rest_s + self.pass_s * steps * (1 if guidance == 1.0 else 2)

    @property
    def fps(self) -> float:
        """Pictures a second with the engine's own steps and guidance."""
        return 1.0 / max(self.seconds(), 1e-9)


def known_pace(name: str, folder: Path, device: str | None = None) -> Pace | None:
    """How fast an engine was on this computer when it was measured; None: not yet.

    Args:
        name: of the engine.
        folder: where measurements are kept.
        device: type of the device that computes; None: the fastest that was measured.
    """
    kept = _read(folder)
    keys = [_key(name, device)] if device else [key for key in kept if key.startswith(_key(name, ""))]
    found = [pace for key in keys if (pace := _pace(kept.get(key))) is not None]
    return min(found, key=Pace.seconds, default=None)


def measure_pace(engine: Engine, folder: Path) -> Pace:
    """Let an engine draw made-up frames for two seconds and keep the result in `folder`.

    One and two steps are drawn; what more steps and guidance cost is reckoned from them.
    """
    pace = _measured(engine)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / _FILE) as path:
        measured = _read(folder) | {_key(engine.facts.name, engine.device.type): asdict(pace)}
        path.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return pace


def _measured(engine: Engine) -> Pace:
    from engines.base import Style

    facts, speech = engine.facts, engine.hear(_noise())
    frames = [_frame(engine, index / 25) for index in range(facts.window)]
    person = engine.meet(frames[:1])

    def draw(count: int, steps: int) -> tuple[list[MouthFrame], np.ndarray]:
        new = [replace(frame, kept=None) for frame in frames[:count]]  # else the engine need not look at them again
        return new, engine.painter(person, speech, Style(steps, 1.0))(new)

    draw(1, 1)  # the first time also loads and hears
    count = max(1, min(facts.window, int(_PROBE_S / 4 / _timed(lambda: draw(1, 1)))))
    drawn = draw(count, 1)
    rendering, painting = _timed(lambda: engine.render(*drawn)), _timed(lambda: draw(count, 1))
    step = max(_timed(lambda: draw(count, 2)) - painting, 0.0) if facts.steps > 1 else 0.0
    return Pace((rendering + painting - step) / count, step / count, facts.steps, facts.guidance)


def _timed(work: Callable[[], object]) -> float:
    """Seconds that something takes: the mean of as many times as there is time for."""
    started, rounds = time.perf_counter(), 0
    while rounds == 0 or time.perf_counter() - started < _PROBE_S / 4:
        work()
        rounds += 1
    return (time.perf_counter() - started) / rounds


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


def _key(name: str, device: str) -> str:
    return f"{name}, {platform.node()}, {platform.machine()}, {available_cores()} cores, {device}"


def _pace(kept: object) -> Pace | None:
    try:
        return Pace(**kept)
    except TypeError:  # of another version of this program
        return None


def _read(folder: Path) -> dict[str, object]:
    try:
        return dict(json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
