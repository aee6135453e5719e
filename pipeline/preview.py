"""A look at the first seconds of a result while the rest is still being made: a small MP4 of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import av

from video_processor import Backdrop, Frame, VideoInfo, VideoWriter

_CRF = 23  # looked at once
_PIX_FMT = "yuv420p"  # what every browser plays
_SEE_THROUGH = "yuva420p"  # the same with an opacity, which the writer of the preview puts before the backdrop


@dataclass(frozen=True)
class Preview:
    """What is wanted.

    Attributes:
        path: an .mp4 file; appears only when it is complete, and not at all if the result is not longer than it.
        seconds: its length.
        pixels: its shorter side is no longer than this.
    """

    path: Path
    seconds: float
    pixels: int


class _Dropped(Exception):
    """The result ended before the preview was full."""


class PreviewWriter:
    """Writes a preview beside the result. It costs one small encode of so many seconds, whatever the result's length.

    Use as a context manager, and give it every frame of the result.

    Args:
        preview: what is wanted; None: nothing is written.
        info: of the result's frames.
        audio: file with the sound of the result.
        tags: metadata, as for `VideoWriter`.
        backdrop: the same.

    Raises:
        InputError: as `VideoWriter`.
    """

    def __init__(
        self,
        preview: Preview | None,
        info: VideoInfo,
        audio: Path,
        tags: Mapping[str, str],
        backdrop: Backdrop | None = None,
    ):
        self._preview = preview
        self._writer: VideoWriter | None = None
        if preview is not None:
            scale = min(1.0, preview.pixels / min(info.width, info.height))
            self._small = replace(
                info, width=_even(info.width * scale), height=_even(info.height * scale), pix_fmt=_PIX_FMT
            )
            self._writer = VideoWriter(
                preview.path,
                self._small,
                crf=_CRF,
                audio_from=audio,
                audio_duration=preview.seconds,
                tags=tags,
                backdrop=backdrop,
            )

    def __enter__(self) -> PreviewWriter:
        if self._writer is not None:
            self._writer.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end(_Dropped())

    def write(self, frame: Frame, written: av.VideoFrame) -> None:
        """Take the next frame of the result.

        Args:
            frame: with its time.
            written: its picture as `VideoWriter.write` returned it.
        """
        if self._writer is None:
            return
        if frame.time >= self._preview.seconds:
            self._end(None)
            return
        turned = self._small.rotation in (90, 270)
        width, height = (self._small.width, self._small.height)[:: -1 if turned else 1]
        colours = {"src_color_range": written.color_range, "dst_color_range": written.color_range}
        kind = _SEE_THROUGH if any(part.is_alpha for part in written.format.components) else _PIX_FMT
        self._writer.write(replace(frame, raw=written.reformat(width, height, kind, **colours)))

    def _end(self, error: _Dropped | None) -> None:
        """Complete the file, or with an error remove it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.__exit__(error and type(error), error, None)


def _even(length: float) -> int:
    """The nearest length that 4:2:0 can have."""
    return max(2, 2 * round(length / 2))
