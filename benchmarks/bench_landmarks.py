"""How far MediaPipe's mesh is from the 68 face points that other networks were trained with, on real clips.

    python benchmarks/bench_landmarks.py ../shared/talking_faces --clips 60

The reference is dlib's shape predictor (requirements-eval.txt), which marks the same 68 points. Half of the people
are used to fit constant offsets (printed, for `engines/landmarks.py`), the other half to measure: distances in px of a
face whose eyes are 72 px apart, as on the canonical face, before and after the fit; then the crops that the points
make: how far their corners lie from those that dlib's points make.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import cv2
import dlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees benchmarks/ only

from engines.landmarks import MESH_68, OFFSETS  # noqa: E402
from engines.latentsync.faces import MASK_SIDE, align_three, canvas_size  # noqa: E402
from engines.musetalk.faces import face_box  # noqa: E402
from faces.alignment import align_matrix  # noqa: E402
from faces.detector import FaceDetector, FaceMesh, roi_from_detection, roi_from_mesh  # noqa: E402
from video_processor import VideoReader  # noqa: E402

REPO = Path(__file__).resolve().parent.parent
_TIMES_S = (0.3, 1.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips_dir", type=Path)
    parser.add_argument("--clips", type=int, default=60)
    arguments = parser.parse_args()
    people = _one_clip_of_each(arguments.clips_dir, arguments.clips)
    found = [pairs for clip in people if (pairs := _pairs(clip))]
    fitted, measured = found[0::2], found[1::2]
    offsets = np.mean([theirs - ours for pairs in fitted for ours, theirs in pairs], axis=0)
    ours = np.array([mine for pairs in measured for mine, _ in pairs])
    theirs = np.array([reference for pairs in measured for _, reference in pairs])
    print(f"{len(fitted)} people fitted, {len(measured)} measured, {len(ours)} pictures; px where eyes are 72 px apart")
    print("offsets = " + np.array2string(offsets, separator=", ", precision=1, suppress_small=True, max_line_width=110))
    for name, moved in (("mesh alone", 0.0), ("as in engines/landmarks.py", OFFSETS), ("fitted now", offsets)):
        _report(name, ours + moved, theirs)


def _one_clip_of_each(folder: Path, count: int) -> list[Path]:
    lines = (folder / "manifest.tsv").read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    first: dict[str, Path] = {}
    for line in lines[1:]:
        row = dict(zip(columns, line.split("\t"), strict=False))
        first.setdefault(row["person"], folder / row["file"])
    clips = list(first.values())
    return clips[:: max(1, len(clips) // count)][:count]


def _pairs(clip: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """(68, 2) of the mesh and of dlib, on the canonical face."""
    wanted, pairs = list(_TIMES_S), []
    with VideoReader(clip) as reader:
        for frame in reader:
            if wanted and frame.time >= wanted[0]:
                wanted.pop(0)
                pairs += _pair(frame.picture.whole())
            if not wanted:
                break
    return pairs


def _pair(image: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    detector, mesh, find, mark = _networks()
    small, scale = _small(image)
    faces, boxes = detector.detect(image), find(small, 0)
    if not faces or not boxes:
        return []
    points, _ = mesh(image, roi_from_detection(faces[0]))
    points, presence = mesh(image, roi_from_mesh(points))
    box = max(boxes, key=lambda found: found.area())
    sides = (box.left(), box.top(), box.right(), box.bottom())
    shape = mark(image, dlib.rectangle(*(round(side / scale) for side in sides)))
    theirs = np.array([(p.x, p.y) for p in shape.parts()], np.float64)
    matrix = align_matrix(points)
    ours, theirs = (p @ matrix[:, :2].T + matrix[:, 2] for p in (points[MESH_68, :2], theirs))
    same_face = presence > 0.5 and np.abs(ours - theirs).mean() < 25
    return [(ours, theirs)] if same_face else []


_LOADED: list[tuple] = []


def _networks() -> tuple:
    if not _LOADED:
        folder = REPO / "pretrained" / "faces"
        package = importlib.util.find_spec("face_recognition_models").submodule_search_locations[0]
        predictor = dlib.shape_predictor(str(Path(package) / "models" / "shape_predictor_68_face_landmarks.dat"))
        _LOADED.append((FaceDetector(folder), FaceMesh(folder), dlib.get_frontal_face_detector(), predictor))
    return _LOADED[0]


def _small(image: np.ndarray) -> tuple[np.ndarray, float]:
    scale = min(1.0, 480 / max(image.shape[:2]))
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), scale


def _report(name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
    parts = {
        "LatentSync left brow": _middle(slice(17, 22)),
        "LatentSync right brow": _middle(slice(22, 27)),
        "LatentSync nose": _middle([29, 30, 31, 35]),
        "MuseTalk left": lambda p: p[..., 0].min(-1)[..., None],
        "MuseTalk right": lambda p: p[..., 0].max(-1)[..., None],
        "MuseTalk bottom": lambda p: p[..., 1].max(-1)[..., None],
        "MuseTalk middle (point 29)": lambda p: p[..., 29, 1:],
    }
    print(name)
    for part, of in parts.items():
        off = of(ours) - of(theirs)
        print(f"  {part}: mean {off.mean(0).round(1)}, distance {np.linalg.norm(off, axis=-1).mean():.1f} px")
    for crop, corners in (("LatentSync", _latentsync_corners), ("MuseTalk", _musetalk_corners)):
        pairs = [(corners(mine), corners(reference)) for mine, reference in zip(ours, theirs, strict=True)]
        off = np.array([np.linalg.norm(a - b, axis=1).mean() for a, b in pairs])
        side = np.mean([np.linalg.norm(b[1] - b[0]) for _, b in pairs])
        most = np.quantile(off, 0.9)
        print(f"  crop of {crop}, {side:.0f} px wide: corners {off.mean():.1f} px off, 90 % within {most:.1f} px")


def _latentsync_corners(points: np.ndarray) -> np.ndarray:
    """Where the corners (4, 2) of the canvas lie that 68 points make."""
    three = [_middle(part)(points) for part in (slice(17, 22), slice(22, 27), [29, 30, 31, 35])]
    width, height = canvas_size(MASK_SIDE)
    inverse = cv2.invertAffineTransform(align_three(np.stack(three), MASK_SIDE))
    return np.array([(0, 0), (width, 0), (width, height), (0, height)]) @ inverse[:, :2].T + inverse[:, 2]


def _musetalk_corners(points: np.ndarray) -> np.ndarray:
    x0, y0, x1, y1 = face_box(points, height=10_000)
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def _middle(indices: slice | list[int]):  # noqa: ANN202
    return lambda p: p[..., indices, :].mean(-2)


if __name__ == "__main__":
    main()
