"""Lays frames of an original and of its result side by side, to be looked at.

    python tools/contact_sheet.py --original examples/portrait.jpg --result outputs/demo.mp4 \
        --output docs/images/demo_sheet.jpg

The upper row is the original, the lower one the result, at moments spread evenly over the result; ``--zoom`` cuts out
the face, found in the first frame shown.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees tools/ only

from faces.detector import FaceDetector, roi_from_detection  # noqa: E402
from utils.helpers import InputError, atomic_path  # noqa: E402
from video_processor import fitted_frames, probe_video  # noqa: E402

NETWORKS = Path(__file__).resolve().parent.parent / "pretrained" / "faces"
GAP_PX = 4


def frames_at(path: Path, moments: np.ndarray, duration: float) -> list[np.ndarray]:
    """The pictures (H, W, 3) shown at some moments (seconds, rising) of a video played on for ``duration`` seconds."""
    shown, wanted = [], list(moments)
    for frame in fitted_frames(path, duration, "bounce", "cut"):
        while wanted and frame.time + frame.duration > wanted[0]:
            shown.append(frame.image)
            wanted.pop(0)
    return shown + shown[-1:] * len(wanted)


def face_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of the largest face with some room around it, px.

    Raises:
        InputError: there is no face.
    """
    found = FaceDetector(NETWORKS).detect(image)
    if not found:
        raise InputError("There is no face in the first frame shown; leave out --zoom.")
    roi = roi_from_detection(max(found, key=lambda d: float(np.prod(d.box[2:] - d.box[:2]))))
    half = int(roi.size * 0.55)
    top, left = max(0, int(roi.cy) - half), max(0, int(roi.cx) - half)
    return top, top + 2 * half, left, left + 2 * half


def sheet(rows: list[list[np.ndarray]], height: int, zoom: bool) -> np.ndarray:
    """One picture of all rows; every frame is scaled to ``height`` px."""
    top, bottom, left, right = face_box(rows[0][0]) if zoom else (0, None, 0, None)
    lines = []
    for row in rows:
        cells = [image[top:bottom, left:right] for image in row]
        size = (round(cells[0].shape[1] * height / cells[0].shape[0]), height)
        scaled = [cv2.resize(cell, size, interpolation=cv2.INTER_AREA) for cell in cells]
        gap = np.full((height, GAP_PX, 3), 255, np.uint8)
        lines.append(np.hstack([part for cell in scaled for part in (cell, gap)][:-1]))
    gap = np.full((GAP_PX, lines[0].shape[1], 3), 255, np.uint8)
    return np.vstack([part for line in lines for part in (line, gap)][:-1])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="video or portrait")
    parser.add_argument("--result", type=Path, required=True, help="video made from it")
    parser.add_argument("--output", type=Path, required=True, help=".jpg or .png")
    parser.add_argument("--frames", type=int, default=8, help="moments shown (default: %(default)s)")
    parser.add_argument("--start", type=float, default=0.0, help="first moment, seconds (default: %(default)s)")
    parser.add_argument("--span", type=float, help="seconds from the first to the last moment (default: to the end)")
    parser.add_argument("--height", type=int, default=200, help="of a frame, px (default: %(default)s)")
    parser.add_argument("--zoom", action="store_true", help="show the face only")
    args = parser.parse_args(arguments)
    try:
        duration = probe_video(args.result).duration or 1.0
        span = args.span or duration - args.start
        moments = args.start + span * (np.arange(args.frames) + 0.5) / args.frames
        rows = [frames_at(path, moments, duration) for path in (args.original, args.result)]
        picture = sheet(rows, args.height, args.zoom)
        with atomic_path(args.output) as path:
            cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
