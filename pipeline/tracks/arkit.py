"""Apple's ARKit blend shapes of the lower face, as the app Live Link Face writes them, and as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from pipeline.track import SHAPES, Track

_EYE = ("EyeBlink", "EyeLookDown", "EyeLookIn", "EyeLookOut", "EyeLookUp", "EyeSquint", "EyeWide")
_MOUTH = (
    "JawForward JawRight JawLeft JawOpen MouthClose MouthFunnel MouthPucker MouthRight MouthLeft MouthSmileLeft "
    "MouthSmileRight MouthFrownLeft MouthFrownRight MouthDimpleLeft MouthDimpleRight MouthStretchLeft "
    "MouthStretchRight MouthRollLower MouthRollUpper MouthShrugLower MouthShrugUpper MouthPressLeft MouthPressRight "
    "MouthLowerDownLeft MouthLowerDownRight MouthUpperUpLeft MouthUpperUpRight"
).split()
_REST = (
    "BrowDownLeft BrowDownRight BrowInnerUp BrowOuterUpLeft BrowOuterUpRight CheekPuff CheekSquintLeft "
    "CheekSquintRight NoseSneerLeft NoseSneerRight TongueOut HeadYaw HeadPitch HeadRoll LeftEyeYaw LeftEyePitch "
    "LeftEyeRoll RightEyeYaw RightEyePitch RightEyeRoll"
).split()
COLUMNS = (*(f"{name}Left" for name in _EYE), *(f"{name}Right" for name in _EYE), *_MOUTH, *_REST)
"""What Live Link Face records, in its order: 52 blend shapes and 9 angles."""

_SIDES = ("Left", "Right")


def blend_shapes(track: Track) -> dict[str, np.ndarray]:
    """ARKit's names (as in `jawOpen`) -> weights (F,) float64 in [0, 1], of those that a mouth moves when it speaks."""
    opening, width, protrusion, jaw = (
        np.asarray(values, np.float64)
        for values in (track.curves.opening, track.curves.width, track.curves.protrusion, track.curves.jaw)
    )
    pressed, teeth, on_lip = (track.weights[:, SHAPES.index(shape)].astype(np.float64) for shape in "ABG")
    open_wide, broad = np.clip(2 * opening, 0, 1), np.maximum(width, 0)
    force = min(track.options.strength, 1.0)
    found = {
        "jawOpen": jaw,
        "mouthClose": pressed * jaw,
        "mouthFunnel": 0.8 * protrusion * open_wide,
        "mouthPucker": protrusion * (1 - 0.5 * open_wide),
        "mouthRollLower": force * (0.6 * on_lip + 0.3 * pressed),
        "mouthRollUpper": 0.3 * force * pressed,
        "mouthShrugLower": 0.15 * protrusion,
        "mouthShrugUpper": 0.1 * protrusion,
    }
    sides = {
        "mouthStretch": 0.45 * broad,
        "mouthSmile": 0.3 * broad,
        "mouthPress": 0.5 * force * pressed,
        "mouthLowerDown": (0.55 * opening + 0.25 * force * teeth) * (1 - pressed),
        "mouthUpperUp": (0.35 * opening + 0.25 * force * on_lip) * (1 - pressed),
    }
    found |= {f"{name}{side}": values for name, values in sides.items() for side in _SIDES}
    return {name: np.clip(values, 0.0, 1.0) for name, values in found.items()}


def timecode(time: float, fps: float) -> str:
    """Hours, minutes, seconds, frame and part of a frame as Live Link Face writes them: 00:00:01:15.000."""
    whole = int(time + 1e-9)
    frame = max(0.0, (time - whole) * fps)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}:{frame:06.3f}"


def write_live_link(track: Track, path: Path) -> None:
    """The CSV of Live Link Face: Timecode, BlendShapeCount, 61 columns; what a mouth does not move is 0."""
    shapes = blend_shapes(track)
    known = {f"{name[0].upper()}{name[1:]}": values for name, values in shapes.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["Timecode", "BlendShapeCount", *COLUMNS])
        for frame, time in enumerate(track.times):
            values = (f"{known[name][frame]:.6f}" if name in known else "0" for name in COLUMNS)
            rows.writerow([timecode(float(time), track.fps), len(COLUMNS), *values])


def write_arkit_json(track: Track, path: Path) -> None:
    """An object with fps, duration, names of the blend shapes, and frames: a list of weights for each of them."""
    shapes = blend_shapes(track)
    table = np.round(np.stack(list(shapes.values()), axis=1), 4)
    told = {
        "fps": track.fps,
        "duration": round(track.duration, 4),
        "names": list(shapes),
        "frames": [
            {"time": round(float(t), 4), "weights": row} for t, row in zip(track.times, table.tolist(), strict=True)
        ],
    }
    path.write_text(json.dumps(told), encoding="utf-8")
