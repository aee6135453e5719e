"""The sound of a video that is being written: the original packets where the container can hold them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import OutputContainer

from utils.helpers import InputError, temporary_folder
from utils.media import aligned_sound, audio_stream, open_media, packets, start_time

# Codecs that players accept inside each container. FFmpeg could also write PCM into MP4; few would play it.
_COMMON = ("aac", "mp3", "ac3", "eac3", "alac")
_PCM = ("pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le")
_COPYABLE = {
    ".mp4": (*_COMMON, "opus", "flac"),
    ".m4v": (*_COMMON, "opus", "flac"),
    ".mov": (*_COMMON, *_PCM),
    ".mkv": (*_COMMON, *_PCM, "opus", "vorbis", "flac"),
    ".webm": ("opus", "vorbis"),
}
# Where decoders have other names than their codecs.
_CODEC_OF_DECODER = {"mp3float": "mp3", "libopus": "opus", "libvorbis": "vorbis"}
_NEED_HEADER = ("alac", "flac", "opus", "vorbis")
_LEAST_MP3_RATE = 16_000  # Hz; slower MP3 is not allowed in MP4
_BIT_RATE = 192_000
# Layouts that both encoders know; anything rarer is mixed down to stereo.
_LAYOUTS = {1: "mono", 6: "5.1", 8: "7.1"}
# Packets before the clip's start are kept this long (s): decoders need some to warm up (AAC, MP3, Opus).
_WARM_UP_S = 0.1


class SoundTrack:
    """Adds the sound of a file (of several: what a player would play) to an output, copied packet by packet or encoded.

    Copied where the container allows; otherwise encoded at the original rate and channels (AAC at 192 kbit/s,
    Opus in WebM). Time 0 is the start of the clip, as in `audio_processor.load_audio`.

    Args:
        output: container that has not been written to yet.
        source: a sound file or a video with sound.
        suffix: of the output file, for example ".mp4".
        end: seconds after which the sound is cut; None: to its end.

    Raises:
        InputError: no sound stream, or a file that cannot be read.
    """

    def __init__(self, output: OutputContainer, source: Path, suffix: str, end: float | None = None):
        self._output = output
        self._source = source
        self._end = float("inf") if end is None else end
        self._opened = ExitStack()
        self._input = self._opened.enter_context(open_media(source))
        stream = audio_stream(self._input)
        if stream is None:
            self.close()
            raise InputError(f"The file {source} has no sound stream; give a file with speech in it.")
        if _can_copy(stream, suffix):
            target = output.add_stream_from_template(stream)
            self._packets = self._copied(stream, target)
        else:
            target = _add_encoder(output, stream, suffix)
            self._packets = self._encoded(stream, target)
        if (language := stream.metadata.get("language", "und")) != "und":
            target.metadata["language"] = language
        self._next: tuple[float, av.Packet] | None = None
        self._started = False

    def write_until(self, seconds: float) -> None:
        """Write the packets that start before a time, so that sound and pictures alternate in the file.

        Raises:
            InputError: the source has no sound at all in its sound stream.
        """
        if not self._started:
            self._started = True
            self._next = next(self._packets, None)
            if self._next is None:
                raise InputError(f"The sound of {self._source} has zero length; give a file with speech in it.")
        while self._next is not None and self._next[0] < min(seconds, self._end):
            self._output.mux(self._next[1])
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the source file."""
        self._opened.close()

    def _copied(self, stream: AudioStream, target: AudioStream) -> Iterator[tuple[float, av.Packet]]:
        origin = round(start_time(self._input) / stream.time_base)
        warm_up = round(_WARM_UP_S / stream.time_base)
        last = None
        for packet in packets(self._input, stream):
            if packet.dts is None or packet.pts is None or packet.pts - origin < -warm_up:
                continue
            # A stamp that does not go forward is damaged, and no container takes it.
            if last is not None and packet.dts <= last:
                continue
            last = packet.dts
            packet.pts -= origin
            packet.dts -= origin
            packet.stream = target
            yield float(packet.pts * stream.time_base), packet

    def _encoded(self, stream: AudioStream, target: AudioStream) -> Iterator[tuple[float, av.Packet]]:
        context = target.codec_context
        rate = context.sample_rate
        for frame in aligned_sound(self._input, stream, rate, context.format.name, context.layout.name):
            yield from self._timed(target.encode(frame), rate)
        yield from self._timed(target.encode(None), rate)

    @staticmethod
    def _timed(packets: list[av.Packet], rate: int) -> Iterator[tuple[float, av.Packet]]:
        for packet in packets:
            yield float(packet.pts * (packet.time_base or Fraction(1, rate))), packet


def fits(source: Path, suffix: str, end: float | None = None) -> bool:
    """Whether a container takes a sound, tried without anything beside it; arguments: see `SoundTrack`.

    Raises:
        InputError: the sound cannot be read.
    """
    with temporary_folder() as folder:
        try:
            with av.open(str(folder / f"sound{suffix}"), "w") as output, ExitStack() as stack:
                track = SoundTrack(output, source, suffix, end)
                stack.callback(track.close)
                track.write_until(math.inf)
        except (av.ArgumentError, av.InvalidDataError):
            return False
    return True


def _can_copy(stream: AudioStream, suffix: str) -> bool:
    name = stream.codec_context.name
    codec = _CODEC_OF_DECODER.get(name, name)
    if codec == "mp3" and suffix in (".mp4", ".m4v") and stream.sample_rate < _LEAST_MP3_RATE:
        return False
    # Without this the packets cannot be told apart from the header: a raw stream that was never described.
    if codec in _NEED_HEADER and not stream.codec_context.extradata:
        return False
    return codec in _COPYABLE[suffix]


def _add_encoder(output: OutputContainer, stream: AudioStream, suffix: str) -> AudioStream:
    name = "libopus" if suffix == ".webm" else "aac"
    rates = av.Codec(name, "w").audio_rates or [stream.sample_rate]
    target = output.add_stream(name, rate=min(rates, key=lambda rate: abs(rate - stream.sample_rate)))
    target.codec_context.layout = _LAYOUTS.get(stream.channels, "stereo")
    target.codec_context.bit_rate = _BIT_RATE
    return target
