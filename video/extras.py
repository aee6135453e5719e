"""What a video carries beside picture and sound, copied into another one: title, chapters, subtitles, timecode."""

from __future__ import annotations

import heapq
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from utils.media import open_media, packets, start_time

_TAGS = (
    *("title", "artist", "album", "album_artist", "author", "comment", "composer", "copyright", "date", "description"),
    *("genre", "grouping", "keywords", "network", "performer", "publisher", "show", "synopsis", "track"),
)
"""Those that say what the work is; what the recording device wrote of itself or of its place is left out."""

_TEXT_OF = {".mp4": "mov_text", ".m4v": "mov_text", ".mov": "mov_text", ".mkv": "subrip", ".webm": "webvtt"}
_TEXTS = ("mov_text", "subrip", "srt", "webvtt", "ass", "ssa", "text")
_TICK = Fraction(1, 1000)  # seconds, of copied subtitles
_MOST = 50_000  # subtitles; a day of talk has fewer
_LONGEST_TAG, _LONGEST_TEXT = 4000, 60_000  # characters; bytes


def merged_tags(old: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Tags of a work with our own; our comment stands below that which was there."""
    kept = {name.lower(): text[:_LONGEST_TAG] for name, text in old.items() if name.lower() in _TAGS}
    before = kept.get("comment", "")
    merged = kept | dict(own)
    if before and "comment" in own:
        merged["comment"] = before if own["comment"] in before else f"{before}\n{own['comment']}"
    return merged


class Extras:
    """Copies what the container takes of a source into an output that has its picture stream but no packets yet.

    Args:
        output: the container.
        picture: its stream of pictures.
        source: the video that the pictures come from.
        suffix: of the output file, for example ".mp4".
        tags: our own tags.

    Attributes:
        notes: sentences about what could not be copied.

    Raises:
        InputError: the source cannot be read.
    """

    def __init__(
        self, output: OutputContainer, picture: VideoStream, source: Path, suffix: str, tags: Mapping[str, str]
    ):
        self._output = output
        self._opened = ExitStack()
        self._input = self._opened.enter_context(open_media(source))
        self.notes: tuple[str, ...] = ()
        output.metadata.update(merged_tags(self._input.metadata, tags))
        chapters = self._input.chapters()
        if chapters:
            output.set_chapters(_from_start(chapters, start_time(self._input)))
        timecode = _timecode(self._input)
        if timecode is not None:
            picture.metadata["timecode"] = timecode
        self._waiting = self._subtitles(_TEXT_OF[suffix])
        self._next = next(self._waiting, None)

    def write_until(self, seconds: float) -> None:
        """Write the subtitles that begin before a time."""
        while self._next is not None and self._next[0] < seconds:
            self._output.mux(self._next[1])
            self._next = next(self._waiting, None)

    def close(self) -> None:
        """Close the source."""
        self._opened.close()

    def _subtitles(self, codec: str) -> Iterator[tuple[float, av.Packet]]:
        """All subtitles with their times in seconds, in order."""
        streams = [s for s in self._input.streams.subtitles if s.codec_context]
        texts = [s for s in streams if s.codec_context.codec.canonical_name in _TEXTS]
        if texts:
            self.notes += ("The subtitles of the video were copied; they tell the old words.",)
        if len(texts) < len(streams):
            self.notes += ("Subtitles that are pictures were not kept.",)
        targets = []
        for stream in texts:
            target = self._output.add_mux_stream(codec)
            target.time_base = _TICK
            if language := stream.metadata.get("language"):
                target.metadata["language"] = language
            targets.append(target)
        return self._read(list(zip(texts, targets, strict=True)), codec)

    def _read(self, pairs: list[tuple[Stream, Stream]], codec: str) -> Iterator[tuple[float, av.Packet]]:
        origin = start_time(self._input)
        found: list[tuple[float, int, av.Packet]] = []
        for number, (stream, target) in enumerate(pairs):
            self._input.seek(0)
            for packet in packets(self._input, stream):
                text = _text(bytes(packet), stream.codec_context.codec.canonical_name)
                if packet.pts is None or not packet.duration or not text or len(found) >= _MOST:
                    continue
                start = packet.pts * packet.time_base - origin
                made = _packet(text, codec, start, packet.duration * packet.time_base)
                if made is not None:
                    made.stream = target
                    heapq.heappush(found, (float(start), number * 10**9 + len(found), made))
        while found:
            start, _, packet = heapq.heappop(found)
            yield start, packet


def _packet(text: str, codec: str, start: Fraction, length: Fraction) -> av.Packet | None:
    if start < 0:
        return None
    plain = re.sub(r"<[^<>]*>|\{\\[^{}]*\}", "", text) if codec == "mov_text" else text
    data = plain.encode()[:_LONGEST_TEXT]
    packet = av.Packet(struct.pack(">H", len(data)) + data if codec == "mov_text" else data)
    packet.pts = packet.dts = round(start / _TICK)
    packet.duration, packet.time_base = max(1, round(length / _TICK)), _TICK
    return packet


def _text(data: bytes, codec: str) -> str:
    """The words of a subtitle as its container holds it."""
    if codec == "mov_text":
        (length,) = struct.unpack(">H", data[:2]) if len(data) >= 2 else (0,)
        data = data[2 : 2 + length]
    text = data.decode("utf-8", errors="replace").strip("\0\r\n ")
    if codec in ("ass", "ssa"):  # ReadOrder, Layer, Style, Name, three margins, Effect, and then the words
        text = re.sub(r"\{[^{}]*\}", "", text.split(",", 8)[-1]).replace("\\N", "\n").replace("\\n", "\n")
    return text


def _timecode(container: InputContainer) -> str | None:
    """The time of day or of the tape at the first picture, hh:mm:ss:ff, where the file tells it."""
    places = [container.metadata, *(stream.metadata for stream in container.streams)]
    told = [text for place in places for name, text in place.items() if name.lower() == "timecode"]
    return next((text for text in told if re.fullmatch(r"\d\d:\d\d:\d\d[:;.]\d\d", text)), None)


def _from_start(chapters: list[dict], origin: Fraction) -> list[dict]:
    """Chapters counted from the start of the clip, those that make no sense left out."""
    kept = []
    for chapter in chapters:
        base = chapter["time_base"]
        if not base or chapter["end"] <= chapter["start"]:
            continue
        shift = round(origin / base)
        start, end = max(0, chapter["start"] - shift), chapter["end"] - shift
        if end > start:
            kept.append({**chapter, "id": len(kept) + 1, "start": start, "end": end})
    return kept
