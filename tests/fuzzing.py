"""Damaged media files in any number: makes them from real ones, reads them, and ends at the first that is not handled.

    python -m tests.fuzzing FOLDER --first 0 --count 2000

FOLDER holds the seeds (`make_seeds`). Each case is made from its number alone, so that it can be made again. Before a
case its number is printed; whoever started the process knows by the last one which case has taken it down.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import shutil
import signal
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import soundfile
from PIL import Image

from audio_processor import load_audio, probe_audio
from tests.footage import face_frame, make_portrait, make_sound, make_video, speech_like
from utils.helpers import InputError
from utils.media import MediaLimits
from video_processor import VideoReader, VideoWriter, fitted_frames, painted_frame, painted_info, probe_video

LIMITS = MediaLimits(max_pixels=640 * 640, max_duration_s=60.0, max_streams=20)
MAX_CPU_S = 20
"""Processor time after which a case counts as hanging."""

_ADDRESS_SPACE = 6 * 2**30
_MAX_FRAMES = 24
_SIZE = (96, 80)


def make_seeds(folder: Path) -> None:
    """Small real files of all kinds that are documented, to be damaged."""
    plain = {"size": _SIZE, "keyframe_interval": 4}
    make_video(folder / "h264.mp4", 0.4, **plain)
    make_video(folder / "fast.mp4", 0.3, index_first=True, rotation=90, **plain)
    make_video(folder / "h264.mkv", 0.4, **plain)
    make_video(folder / "mpeg4.avi", 0.4, codec="mpeg4", sound_codec="libmp3lame", **plain)
    make_video(folder / "mjpeg.mov", 0.3, codec="mjpeg", pix_fmt="yuvj420p", sound_codec="pcm_s16le", **plain)
    with VideoWriter(folder / "vp9.webm", probe_video(folder / "h264.mp4"), audio_from=folder / "h264.mp4") as writer:
        for frame in fitted_frames(folder / "h264.mp4"):
            writer.write(frame)
    info = painted_info(folder, *_SIZE, fps=10, transparent=True)
    with VideoWriter(folder / "alpha.webm", info) as writer:
        for index in range(4):
            head = face_frame(index / 10, _SIZE)
            writer.write(painted_frame(np.dstack([head, head[..., 0]]), index, 10))
    make_video(folder / "hevc.mp4", 0.3, codec="libx265", pix_fmt="yuv420p10le", **plain)
    make_video(folder / "h264.ts", 0.4, sound_codec="mp2", **plain)
    make_video(folder / "av1.webm", 0.3, codec="libsvtav1", sound=False, **plain)
    pictures = [Image.fromarray(face_frame(i / 10, _SIZE)) for i in range(5)]
    pictures[0].save(folder / "moving.gif", save_all=True, append_images=pictures[1:], duration=80)
    pictures[0].save(folder / "moving.png", save_all=True, append_images=pictures[1:], duration=80)
    for name in ("me.png", "me.jpg"):
        make_portrait(folder / name, _SIZE, orientation=6)
    pictures[0].save(folder / "me.webp")
    pictures[0].save(folder / "me.tif", compression="tiff_lzw")
    pictures[0].convert("P").save(folder / "me.bmp")
    pictures[0].convert("CMYK").save(folder / "cmyk.jpg")
    make_sound(folder / "pcm.wav", 0.3, 16000, 2)
    for name, codec, rate in (
        ("s.mp3", "libmp3lame", 44100),
        ("s.m4a", "aac", 44100),
        ("opus.ogg", "libopus", 48000),
        ("s.opus", "libopus", 48000),
    ):
        _encode_sound(folder / name, codec, rate)
    for name in ("s.flac", "vorbis.ogg"):
        soundfile.write(folder / name, speech_like(0.4, 22050), 22050)


def _encode_sound(path: Path, codec: str, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(speech_like(0.4, rate)[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        fifo = av.AudioFifo()
        fifo.write(frame)
        for piece in fifo.read_many(stream.codec_context.frame_size or 1024, partial=True):
            piece.pts = None
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def make_case(number: int, seeds: list[Path], folder: Path) -> Path:
    """Write the damaged file of a case; most keep the name of their seed, some get a wrong one."""
    random = np.random.default_rng(number)
    seed = seeds[number % len(seeds)]
    data = bytearray(seed.read_bytes())
    for _ in range(int(random.integers(1, 4))):
        data = _DAMAGES[random.integers(len(_DAMAGES))](data, random) or bytearray(b"\0")
    if data[:4] == b"\x89PNG" and random.random() < 0.8:
        data = _with_checksums(data)
    suffix = seed.suffix if random.random() < 0.95 else seeds[random.integers(len(seeds))].suffix
    path = folder / f"case{suffix}"
    path.write_bytes(data)
    return path


def _flip_bits(data: bytearray, random: np.random.Generator) -> bytearray:
    for position in random.integers(0, len(data) * 8, random.integers(1, 30)):
        data[position >> 3] ^= 1 << (position & 7)
    return data


def _edit_header(data: bytearray, random: np.random.Generator) -> bytearray:
    """Put an extreme number near the start or the end, where most files have their tables."""
    near = int(min(random.integers(4, 3000), len(data)))
    position = near - 4 if random.random() < 0.7 else len(data) - near
    values = (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF, 0x10000, int(random.integers(2**32)))
    order = "<I" if random.random() < 0.5 else ">I"
    data[max(position, 0) : position + 4] = struct.pack(order, values[random.integers(len(values))])
    return data


def _edit_box(data: bytearray, random: np.random.Generator) -> bytearray:
    """Change a number just after one of the four-letter names of MP4, AVI, PNG and their like."""
    names = (b"trak", b"mvhd", b"tkhd", b"mdhd", b"stts", b"stsz", b"stsc", b"stco", b"stsd", b"elst", b"ctts", b"avc1")
    names += (b"hvc1", b"mp4a", b"esds", b"strh", b"strf", b"avih", b"idx1", b"IHDR", b"acTL", b"fcTL", b"fmt ")
    found = [place for name in names if (place := data.find(name)) >= 0]
    if not found:
        return _edit_header(data, random)
    position = int(found[random.integers(len(found))] + random.integers(-4, 40))
    values = (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000, int(random.integers(2**32)))
    data[position : position + 4] = struct.pack(">I", values[random.integers(len(values))])
    return data


def _cut(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: random.integers(1, len(data) + 1)]


def _swap_blocks(data: bytearray, random: np.random.Generator) -> bytearray:
    size = int(random.integers(1, max(2, len(data) // 4)))
    a, b = random.integers(0, len(data) - size + 1, 2)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _repeat_block(data: bytearray, random: np.random.Generator) -> bytearray:
    start, stop = sorted(random.integers(0, len(data) + 1, 2))
    return data[:stop] + data[start:stop] * int(random.integers(1, 4)) + data[stop:]


def _remove_block(data: bytearray, random: np.random.Generator) -> bytearray:
    start = int(random.integers(0, len(data)))
    return data[:start] + data[start + int(random.integers(1, 400)) :]


def _fill(data: bytearray, random: np.random.Generator) -> bytearray:
    start, size = int(random.integers(0, len(data))), int(random.integers(1, 300))
    noise = random.bytes(size) if random.random() < 0.5 else bytes(size)
    data[start : start + size] = noise
    return data


_DAMAGES: tuple[Callable[[bytearray, np.random.Generator], bytearray], ...] = (
    *(_flip_bits, _edit_header, _edit_header, _edit_box, _edit_box),
    *(_cut, _swap_blocks, _repeat_block, _remove_block, _fill),
)


def _with_checksums(data: bytearray) -> bytearray:
    """Put right the checksums of a PNG's chunks, so that what was damaged is read and not just refused."""
    position = 8
    while position + 12 <= len(data):
        (size,) = struct.unpack(">I", data[position : position + 4])
        end = position + 8 + size
        if end + 4 > len(data):
            break
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[position + 4 : end]))
        position = end + 4
    return data


def read_case(path: Path, folder: Path, thorough: bool) -> list[str]:
    """Do with a file what a run does with its inputs; returns what went well, and raises what nobody expects."""
    done = []
    for job in (_read_frames, _read_sound, *([_write_again] if thorough else [])):
        try:
            job(path, folder)
            done.append(job.__name__)
        except InputError as error:
            assert "\n" not in str(error) and len(str(error)) < 400 + len(str(path)), str(error)
    return done


def _read_frames(path: Path, _: Path) -> None:
    with VideoReader(path, LIMITS) as reader:
        for frame in itertools.islice(reader, _MAX_FRAMES):
            assert frame.image.shape == (reader.info.height, reader.info.width, 3)
        for _ in itertools.islice(reader.between(0.1, 0.3), 4):
            pass


def _read_sound(path: Path, _: Path) -> None:
    probe_audio(path, LIMITS)
    samples = load_audio(path, limits=LIMITS)
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 1 and samples.size <= 16000 * 61


def _write_again(path: Path, folder: Path) -> None:
    """Played there and back into a new file, with its own sound if it has any."""
    info = probe_video(path, LIMITS)
    length = min(info.duration or 0.4, 1.0)
    target = folder / "again.mkv"
    carried = {"audio_from": path if info.has_audio else None, "copy_from": None if info.is_image else path}
    with VideoWriter(target, info, crf=40, audio_duration=1.0, **carried) as writer:
        for frame in itertools.islice(fitted_frames(path, length + 0.2, "bounce", limits=LIMITS), 2 * _MAX_FRAMES):
            writer.write(frame)
    assert probe_video(target).width in (info.width, info.width - info.width % 2)  # players want even sizes


def run(folder: Path, first: int, count: int) -> None:
    """Go through cases; tells each before it begins, and at the end what came of them and the peak of memory (MB)."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    seeds = sorted(folder.glob("seeds/*"))
    work = folder / f"work-{first}"
    work.mkdir()
    good = {"_read_frames": 0, "_read_sound": 0, "_write_again": 0}
    for number in range(first, first + count):
        print(number, flush=True)
        path = make_case(number, seeds, work)
        # Its default action ends the process, also in the middle of a decoder.
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
        for name in read_case(path, work, thorough=number % 4 == 0):
            good[name] += 1
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.unlink()
        assert not [left for left in work.iterdir() if left.name != "again.mkv"], "something was left behind"
    shutil.rmtree(work)
    print("done", *good.values(), peak_memory(), flush=True)


def peak_memory() -> int:
    """Most memory that this process has had, MB (getrusage would count that of the process that started it too)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


def main(arguments: list[str]) -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seeds", action="store_true", help="make the seeds only")
    given = parser.parse_args(arguments)
    if given.seeds:
        (given.folder / "seeds").mkdir(parents=True)
        make_seeds(given.folder / "seeds")
    else:
        run(given.folder, given.first, given.count)


if __name__ == "__main__":
    main(sys.argv[1:])
