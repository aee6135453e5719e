"""A short video that is played again and again without a jump, in a file that is cheap to decode from front to back.

A video that was filmed is stored forwards and then backwards: played in a circle it never jumps, and nothing has to be
decoded in reverse.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from utils.helpers import InputError, atomic_path, temporary_folder
from video.colour import ACCURATE, BT709

_CRF, _PRESET = "15", "medium"


def write_loop(path: Path, images: Iterable[np.ndarray], count: int, fps: Fraction, bounce: bool) -> None:
    """Write a loop.

    Args:
        path: .mp4; it appears when it is complete.
        images: uint8 RGB (H, W, 3), even sizes, `count` of them.
        count: frames.
        fps: frames per second.
        bounce: store them backwards as well, without the two turning frames.
    """
    with temporary_folder() as folder, atomic_path(path) as temporary:
        kept = _keep(images, count, folder / "frames")
        order = loop_order(count, bounce)
        height, width = kept.shape[1] * 2 // 3, kept.shape[2]
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as container:
            options = {"crf": _CRF, "preset": _PRESET, "bf": "0", "tune": "fastdecode"}
            stream = container.add_stream("libx264", rate=fps, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            context = stream.codec_context
            context.gop_size, context.color_range = max(1, round(fps)), ColorRange.MPEG
            context.colorspace = context.color_primaries = context.color_trc = BT709
            for number in order:
                frame = av.VideoFrame.from_ndarray(kept[number], format="yuv420p")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def loop_order(count: int, bounce: bool) -> list[int]:
    """Which of `count` pictures is shown in each frame of one round."""
    return [*range(count), *(range(count - 2, 0, -1) if bounce else ())]


def _keep(images: Iterable[np.ndarray], count: int, path: Path) -> np.ndarray:
    """All pictures in 4:2:0 planes (count, 1.5 H, W), on disk: they may be larger than the memory."""
    kept: np.ndarray | None = None
    for number, image in zip(range(count), images, strict=True):
        if kept is None:
            height, width = image.shape[:2]
            kept = np.lib.format.open_memmap(path, "w+", np.uint8, (count, height * 3 // 2, width))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        planar = frame.reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            interpolation=ACCURATE,
        )
        kept[number] = planar.to_ndarray()
    return kept


class LoopReader:
    """Frames of a loop, for ever. One thread reads.

    Args:
        path: from `write_loop`.

    Raises:
        InputError: the file cannot be read.
    """

    def __init__(self, path: Path):
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, OSError, IndexError) as error:
            raise InputError(f"The host's video {path.name} cannot be read; make the host again.") from error
        self._stream.codec_context.thread_count = 1
        self._frames = self._endless()

    def __next__(self) -> av.VideoFrame:
        """The next frame, yuv420p in BT.709 of limited range; it is the decoder's, so copy it before changing it."""
        return next(self._frames)

    def __enter__(self) -> LoopReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._frames.close()
        self._container.close()

    def _endless(self) -> Iterator[av.VideoFrame]:
        while True:
            yield from self._container.decode(self._stream)
            self._container.seek(0)


