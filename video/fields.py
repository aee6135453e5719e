"""Interlaced video, in which each frame holds two fields of different moments, made into whole frames."""

from __future__ import annotations

from collections.abc import Iterator

import av

METHOD = "bwdif"
"""FFmpeg's filter that is used."""


def deinterlaced(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """One whole frame for each frame with two fields; times, count and frames that are whole already stay.

    Args:
        frames: decoded frames of one size and pixel format, in order.
    """
    graph = None
    for frame in frames:
        if graph is None:
            graph, time_base = _graph(frame), frame.time_base
        graph.push(frame)
        yield from _pull(graph, time_base)
    if graph is not None:
        graph.push(None)
        yield from _pull(graph, time_base)


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    # One frame for each frame, the order of the fields as tagged, and only frames that are tagged as interlaced.
    filtered = graph.add(METHOD, "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, filtered, graph.add("buffersink")).configure()
    return graph


def _pull(graph: av.filter.Graph, time_base: object) -> Iterator[av.VideoFrame]:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        # The filter counts in half ticks, for those who want one frame a field.
        if frame.pts is not None:
            frame.pts, frame.time_base = round(frame.pts * frame.time_base / time_base), time_base
        if frame.duration:
            frame.duration = max(1, frame.duration // 2)
        yield frame
