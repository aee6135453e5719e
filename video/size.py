"""Another size for a picture: by its longest side, or a width and a height with bars where the shape is another."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from utils.helpers import InputError
from video.colour import is_full_range, is_rgb
from video.transparency import has_alpha

_LEAST, _MOST = 32, 8192  # px of a side


@dataclass(frozen=True)
class Size:
    """How large a picture shall be, as displayed.

    Attributes:
        longest: px of the longer side; the shape stays, sides come out even. 0: `exact` says it.
        exact: width and height, px; the picture is fitted in, black bars fill the rest.
        stills_to: px of the longer side to which still pictures are made smaller; 0: they stay as they are.
    """

    longest: int = 0
    exact: tuple[int, int] | None = None
    stills_to: int = 0

    @classmethod
    def parse(cls, text: str | None, stills_to: int = 0) -> Size:
        """Read a longest side such as 1280, or 1280x720; None leaves all but large still pictures as they are.

        Raises:
            InputError: it is neither, or too small or large.
        """
        if text is None:
            return cls(stills_to=stills_to)
        match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.strip())
        sides = [int(side) for side in match.groups() if side] if match else []
        if not sides or not all(_LEAST <= side <= _MOST for side in sides):
            raise InputError(
                f"The size '{text}' cannot be used; give the longest side such as 1280, or 1280x720, "
                f"each {_LEAST} to {_MOST}."
            )
        return cls(longest=sides[0]) if len(sides) == 1 else cls(exact=(sides[0], sides[1]))

    def of(self, width: int, height: int, is_image: bool) -> tuple[int, int]:
        """The size that a picture gets, px as displayed."""
        if self.exact is not None:
            return self.exact
        longest = self.longest or (min(self.stills_to, max(width, height)) if is_image and self.stills_to else 0)
        if longest in (0, max(width, height)):
            return width, height
        scale = longest / max(width, height)
        return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)


def moved(point: tuple[float, float], full: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    """Where a point of a picture of one size (width, height) lies after it was fitted into another one."""
    scale = min(size[0] / full[0], size[1] / full[1])
    return tuple(at * scale + (new - old * scale) / 2 for at, old, new in zip(point, full, size, strict=True))


def resized(frames: Iterator[av.VideoFrame], width: int, height: int) -> Iterator[av.VideoFrame]:
    """Frames of one size and pixel format fitted into another size as stored; all else about them stays."""
    graph = None
    for frame in frames:
        if graph is None:
            graph = _graph(frame, width, height)
        graph.push(frame)
        fitted = graph.pull()
        fitted.pts, fitted.duration = frame.pts, frame.duration
        if frame.time_base is not None:
            fitted.time_base = frame.time_base
        fitted.color_range, fitted.colorspace = frame.color_range, frame.colorspace
        fitted.color_primaries, fitted.color_trc = frame.color_primaries, frame.color_trc
        yield fitted


def _graph(frame: av.VideoFrame, width: int, height: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base or Fraction(1, 25)
    )
    fit = min(width / frame.width, height / frame.height)
    inner = min(width, round(frame.width * fit)), min(height, round(frame.height * fit))
    if abs(inner[0] - width) <= 2 and abs(inner[1] - height) <= 2:
        inner = width, height  # no bars of a pixel
    # "area" when it becomes smaller: nothing glitters.
    kept = "full" if is_rgb(frame.format) or is_full_range(frame) else "limited"
    flags = f"flags={'area' if fit < 1 else 'bicubic'}+accurate_rnd:in_range={kept}:out_range={kept}"
    scale = graph.add("scale", f"{inner[0]}:{inner[1]}:{flags}")
    bars = graph.add("pad", f"{width}:{height}:(ow-iw)/2:(oh-ih)/2:color=black@{0 if has_alpha(frame.format) else 1}")
    shape = graph.add("setsar", "0")
    form = graph.add("format", frame.format.name)
    graph.link_nodes(source, scale, bars, shape, form, graph.add("buffersink")).configure()
    return graph
