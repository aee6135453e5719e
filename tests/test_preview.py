"""The first seconds of a result, as a file of their own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.preview import Preview, PreviewWriter
from tests import footage
from video_processor import VideoReader, VideoWriter, probe_video

SECONDS = 0.4


def preview_of(video: Path, pixels: int, seconds: float = SECONDS) -> Path:
    """Copy a video as the pipeline would write it; returns where the preview should be."""
    folder = video.parent
    path, sound = folder / "preview.mp4", footage.make_sound(folder / "speech.wav", 1.0)
    info = probe_video(video)
    with (
        VideoReader(video) as reader,
        VideoWriter(folder / "result.mkv", info, "ffv1") as writer,
        PreviewWriter(Preview(path, seconds, pixels), info, sound, {"comment": "made"}) as early,
    ):
        for frame in reader:
            early.write(frame, writer.write(frame))
            assert path.exists() == (frame.time >= seconds)  # long before the result
    return path


@pytest.mark.parametrize("more", [{}, {"rotation": 90}, {"pix_fmt": "yuv444p10le"}, {"full_range": True}])
def test_a_preview_is_small_and_shows_the_same(tmp_path: Path, more: dict[str, object]) -> None:
    video = footage.make_video(tmp_path / "talk.mp4", 1.0, fps=Fraction(25), size=(320, 240), **more)
    path = preview_of(video, pixels=120)
    info, source = probe_video(path), probe_video(video)
    assert (info.width, info.height) == (source.width // 2, source.height // 2) and info.pix_fmt.endswith("420p")
    assert info.duration == pytest.approx(SECONDS, abs=0.05) and info.has_audio
    with VideoReader(path) as small, VideoReader(video) as large:
        one, other = next(iter(small)).image, next(iter(large)).image
    assert np.abs(one.mean((0, 1)) - other.mean((0, 1))).max() < 3


def test_a_short_result_needs_no_preview(tmp_path: Path) -> None:
    video = footage.make_video(tmp_path / "talk.mp4", 0.4)
    assert not preview_of(video, pixels=480, seconds=2.0).exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.mkv", "speech.wav", "talk.mp4"]
