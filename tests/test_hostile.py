"""Files made to do harm: refused in one sentence, quickly, in little memory, and without opening anything else."""

from __future__ import annotations

import io
import os
import resource
import socket
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from audio_processor import load_audio, probe_audio
from tests.footage import face_frame, make_portrait, make_sound, make_video
from utils.helpers import InputError
from utils.media import MediaLimits
from video_processor import VideoReader, VideoWriter, fitted_frames, probe_video

REPO = Path(__file__).resolve().parent.parent
LIMITS = MediaLimits(max_pixels=4000 * 3000, max_duration_s=600, max_streams=50)


def refused(path: Path, seconds: float = 3.0, megabytes: float = 100.0) -> str:
    """What is said of a file that no part of the program may take; also checks what it costs to say so."""
    said = []
    for read in (
        lambda: probe_video(path, LIMITS),
        lambda: list(VideoReader(path, LIMITS).__enter__()),
        lambda: probe_audio(path, LIMITS),
        lambda: load_audio(path, limits=LIMITS),
    ):
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        with pytest.raises(InputError) as caught:
            read()
        assert time.process_time() - began < seconds
        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < megabytes
        message = str(caught.value)
        assert str(path) in message and "\n" not in message and message.endswith(".")
        said.append(message)
    return said[0]


def box(name: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + name + data


def find_box(data: bytes, *path: bytes) -> tuple[int, int]:
    """Where a box lies: start and end. `path` names the boxes it is in, from the outermost."""
    start, end = 0, len(data)
    for depth, name in enumerate(path):
        position = start + (8 if depth else 0)
        while data[position + 4 : position + 8] != name:
            position += struct.unpack(">I", data[position : position + 4])[0]
            assert position < end, name
        start, end = position, position + struct.unpack(">I", data[position : position + 4])[0]
    return start, end


# Lists of other files


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """A video that only the given file may lead to, and must not."""
    (tmp_path / "elsewhere").mkdir()
    return make_video(tmp_path / "elsewhere" / "canary.mp4", 0.2, size=(96, 80))


@pytest.fixture
def listener():
    """A local server that must never be called; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        yield server.getsockname()[1]
        with pytest.raises(TimeoutError):
            server.accept()


LISTS = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
    "list.mpd": '<?xml version="1.0"?><MPD type="static" mediaPresentationDuration="PT1S"><Period><AdaptationSet>'
    '<Representation id="1"><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>',
    "list.ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "list.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\n",
    "list.asx": '<asx version="3"><entry><ref href="{target}"/></entry></asx>',
    "list.ram": "{target}\n",
    "list.pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "list.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
    "list.imf": '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{target}</Id>'
    "</CompositionPlaylist>",
}


@pytest.mark.parametrize("suffix", [None, ".mp4", ".mkv", ".gif", ".wav"])
@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_other_files_are_no_media_whatever_they_are_called(
    tmp_path: Path, canary: Path, listener: int, kind: str, suffix: str | None
):
    for target in (canary, canary.relative_to(tmp_path), f"http://127.0.0.1:{listener}/x.ts", f"file:{canary}"):
        path = tmp_path / (kind if suffix is None else Path(kind).with_suffix(suffix).name)
        path.write_text(LISTS[kind].format(target=target, port=listener))
        refused(path)


@pytest.mark.parametrize(
    "name",
    ["subfile,,start,0,end,0,,:{canary}", "concat:{canary}|{canary}", "data:video_mp4;base64,AAAA", "file:{canary}"]
    + ["http://127.0.0.1:{port}/x.mp4", "tcp://127.0.0.1:{port}", "pipe:0", "crypto:{canary}", "-", "cache:{canary}"],
)
def test_names_that_ffmpeg_would_obey_are_just_names(
    tmp_path: Path, canary: Path, listener: int, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    name = name.format(canary=canary, port=listener)

    with pytest.raises(InputError, match="no file|not a file"):
        probe_video(name)
    with pytest.raises(InputError, match="no file|not a file"):
        load_audio(name)


def opened_by(path: Path) -> str:
    """Everything that a fresh process opens or connects to from the moment it reads a file, one a line."""
    script = """
        import sys
        import audio_processor, video_processor
        from utils.helpers import InputError
        for image in sys.argv[2:]:
            video_processor.probe_video(image)  # what is loaded on first use
        def report(event, arguments):
            if event in ("open", "socket.connect", "socket.__new__", "subprocess.Popen", "os.system"):
                print(event, arguments[0], flush=True)
        sys.addaudithook(report)
        for read in (lambda p: list(video_processor.VideoReader(p).__enter__()), audio_processor.load_audio):
            try:
                read(sys.argv[1])
            except InputError as error:
                print("refused:", error)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(path), str(make_portrait(path.parent / "warm.png"))],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def with_external_data(source: Path, target: Path, kind: bytes, elsewhere: str) -> Path:
    """A movie whose track says that its data lies in another file: "url " as the standard, "alis" as Apple has it."""
    data = source.read_bytes()
    own = box(b"url ", b"\0\0\0\1")
    name = elsewhere.encode() + b"\0"
    if kind == b"alis":
        # Volume and file name, how many folders up and down, then a record of type 2: the absolute path.
        fixed = bytes(10) + b"\6volume".ljust(28, b"\0") + bytes(12) + b"\6canary".ljust(64, b"\0") + bytes(16)
        name += b"\0" * (len(name) % 2)
        name = fixed + struct.pack(">HH", 0, 1) + bytes(16) + struct.pack(">HH", 2, len(name)) + name + b"\xff\xff\0\0"
    other = box(kind, b"\0\0\0\0", name)
    place = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    for depth in range(1, len(place) + 1):
        start, _ = find_box(data, *place[:depth])
        size = struct.unpack(">I", data[start : start + 4])[0]
        data = data[:start] + struct.pack(">I", size + len(other) - len(own)) + data[start + 4 :]
    # A handler's description may hold the same words; the track's own reference comes in its "dinf".
    position = data.index(own, data.index(b"dref"))
    target.write_bytes(data[:position] + other + data[position + len(own) :])
    return target


@pytest.mark.parametrize("kind", [b"url ", b"alis"])
@pytest.mark.parametrize("how", ["{canary}", "http://127.0.0.1:{port}/x.mp4"])
def test_a_movie_whose_data_lies_elsewhere_is_not_followed(
    tmp_path: Path, canary: Path, listener: int, kind: bytes, how: str
):
    plain = make_video(tmp_path / "plain.mov", 0.2, size=(96, 80), sound=False)
    path = with_external_data(plain, tmp_path / "outside.mov", kind, how.format(canary=canary, port=listener))

    log = opened_by(path)

    opened = [line for line in log.splitlines() if line.startswith(("open", "socket", "subprocess"))]
    opened = [line for line in opened if not line.endswith(".pyc")]
    assert opened and all(str(path) in line for line in opened), log


@pytest.mark.skipif(not Path("/usr/bin/strace").exists(), reason="strace is not installed")
@pytest.mark.parametrize("kind", ["list.m3u8", "list.ffconcat", "outside.mov"])
def test_the_system_sees_no_other_file_or_connection(tmp_path: Path, canary: Path, kind: str):
    if kind == "outside.mov":
        plain = make_video(tmp_path / "plain.mov", 0.2, size=(96, 80), sound=False)
        path = with_external_data(plain, tmp_path / kind, b"alis", str(canary))
    else:
        path = tmp_path / kind
        path.write_text(LISTS[kind].format(target=canary, port=1))
    script = "import sys, contextlib, video_processor\n"
    script += "with contextlib.suppress(ValueError): video_processor.probe_video(sys.argv[1])"
    log = tmp_path / "calls"
    strace = ["/usr/bin/strace", "-f", "-e", "trace=openat,open,connect", "-o", log]
    command = [*strace, sys.executable, "-c", script, path]

    subprocess.run(command, cwd=REPO, check=True, timeout=300, capture_output=True)

    calls = log.read_text()
    assert path.name in calls and "canary" not in calls and "connect(" not in calls


# Absurd numbers


def with_many_tracks(source: Path, target: Path, count: int) -> Path:
    data = source.read_bytes()
    movie, movie_end = find_box(data, b"moov")
    start, end = find_box(data, b"moov", b"trak")
    head, tail = data[start : start + 28], data[start + 32 : end]  # around the track's number
    tracks = b"".join(head + struct.pack(">I", 10 + number) + tail for number in range(count))
    # The media data comes first, so no offset changes.
    assert data.find(b"mdat") < movie
    size = struct.pack(">I", movie_end - movie + len(tracks))
    target.write_bytes(data[:movie] + size + data[movie + 4 : movie_end] + tracks + data[movie_end:])
    return target


@pytest.mark.parametrize("count", [60, 10_000])
def test_ten_thousand_streams(tmp_path: Path, count: int):
    plain = make_video(tmp_path / "plain.mp4", 0.2, size=(96, 80))
    few = with_many_tracks(plain, tmp_path / "few.mp4", 20)
    assert probe_video(few, LIMITS).width == 96

    assert "more than 50 streams" in refused(with_many_tracks(plain, tmp_path / "many.mp4", count))


def changed(source: Path, target: Path, place: tuple[bytes, ...], offset: int, new: bytes) -> Path:
    data = bytearray(source.read_bytes())
    start, _ = find_box(bytes(data), *place)
    data[start + offset : start + offset + len(new)] = new
    target.write_bytes(data)
    return target


def test_an_absurd_duration_in_the_header(tmp_path: Path):
    plain = make_video(tmp_path / "plain.mp4", 0.2, size=(96, 80), sound=False)
    media = (b"moov", b"trak", b"mdia")

    # 1,000 s for each frame, and the same as a whole in the track's header and in its edit list.
    edits = (b"moov", b"trak", b"edts", b"elst")
    path = changed(plain, plain, edits, 16, struct.pack(">I", 5_000_000))
    path = changed(path, plain, (*media, b"minf", b"stbl", b"stts"), 20, struct.pack(">I", 30_000 * 1000))
    path = changed(path, tmp_path / "long.mp4", (*media, b"mdhd"), 24, struct.pack(">I", 30_000 * 5000))

    with pytest.raises(InputError, match="longer than 600 s"):
        probe_video(path, LIMITS)


def test_an_absurd_gap_between_two_frames_is_not_filled(tmp_path: Path):
    plain = make_video(tmp_path / "plain.mkv", times=[0, 0.04, 0.08, 5000.0], size=(96, 80), sound=False)
    data = plain.read_bytes()

    with pytest.raises(InputError, match="longer than"):
        with VideoReader(plain, LIMITS) as reader:
            list(reader)
    assert len(data) < 20_000


@pytest.mark.parametrize("gap", [5e3, 1e6])
def test_a_gap_of_days_in_a_sound_is_not_filled_with_silence(tmp_path: Path, gap: float):
    path = tmp_path / "in.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for start in (0.0, 0.1, gap):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 1600), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, round(start * 16000)
            container.mux(stream.encode(frame))
    tracemalloc.start()

    with pytest.raises(InputError, match="longer than"):
        load_audio(path, limits=LIMITS)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_absurd_sizes_in_a_container(tmp_path: Path):
    plain = make_video(tmp_path / "plain.avi", 0.2, size=(96, 80), codec="mjpeg", pix_fmt="yuvj420p", sound=False)
    data = plain.read_bytes()
    assert data.count(struct.pack("<II", 96, 80)) >= 1

    for width, height in ((60000, 60000), (0x7FFFFFF0, 16)):
        path = tmp_path / "large.avi"
        path.write_bytes(data.replace(struct.pack("<II", 96, 80), struct.pack("<II", width, height)))
        # The pictures themselves say how large they are.
        assert probe_video(path, LIMITS).width == 96
        path.write_bytes(path.read_bytes().replace(struct.pack(">HH", 80, 96), struct.pack(">HH", 65500, 65500)))
        refused(path)


@pytest.mark.parametrize("index", [b"\xff" * 64, bytes(64)])
def test_a_broken_index(tmp_path: Path, index: bytes):
    plain = make_video(tmp_path / "plain.mp4", 0.4, size=(96, 80), sound=False)
    for table in (b"stsz", b"stco", b"stsc", b"stts"):
        place = (b"moov", b"trak", b"mdia", b"minf", b"stbl", table)
        path = changed(plain, tmp_path / "broken.mp4", place, 12, index[:12])
        try:
            assert len(list(fitted_frames(path, limits=LIMITS))) < 200
        except InputError as error:
            assert str(path) in str(error)


# Bombs


def png_bomb(path: Path, width: int, height: int) -> Path:
    """A PNG that says it is huge, and is: black, well packed."""
    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(min(height, 400)):
        rows += packer.compress(bytes(width * 3 + 1))
    rows += packer.flush()

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", bytes(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def test_picture_bombs(tmp_path: Path):
    assert "too large" in refused(png_bomb(tmp_path / "bomb.png", 50_000, 50_000))

    picture = io.BytesIO()
    Image.fromarray(face_frame(0.0, (96, 80))).save(picture, "TIFF")
    data = picture.getvalue()
    for old, new in ((96, 60000), (80, 60000)):
        # A TIFF entry of one 16-bit or 32-bit number.
        data = data.replace(struct.pack("<HIHH", 3, 1, old, 0), struct.pack("<HIHH", 3, 1, new, 0))
        data = data.replace(struct.pack("<HII", 4, 1, old), struct.pack("<HII", 4, 1, new))
    (tmp_path / "bomb.tif").write_bytes(data)
    assert "too large" in refused(tmp_path / "bomb.tif")

    gif = io.BytesIO()
    Image.fromarray(face_frame(0.0, (96, 80))).save(gif, "GIF")
    for size in ((65535, 65535), (20000, 20000)):
        (tmp_path / "bomb.gif").write_bytes(gif.getvalue()[:6] + struct.pack("<HH", *size) + gif.getvalue()[10:])
        refused(tmp_path / "bomb.gif")

    jpeg = io.BytesIO()
    Image.fromarray(face_frame(0.0, (96, 80))).save(jpeg, "JPEG")
    data = jpeg.getvalue().replace(struct.pack(">HH", 80, 96), struct.pack(">HH", 65500, 65500), 1)
    (tmp_path / "bomb.jpg").write_bytes(data)
    assert "too large" in refused(tmp_path / "bomb.jpg")


def test_a_gif_and_a_png_with_ever_more_frames_cost_no_memory(tmp_path: Path):
    pictures = [Image.new("RGB", (300, 300), colour) for colour in ("red", "green", "blue")] * 100
    for name in ("many.gif", "many.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=20, optimize=False)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        with pytest.raises(InputError, match="longer than"):
            for _ in fitted_frames(tmp_path / name, limits=MediaLimits(max_duration_s=3)):
                pass

        assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 60


def test_a_sound_bomb_is_refused_by_its_header_and_a_lying_one_while_it_unpacks(tmp_path: Path):
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(40):
            file.write(np.zeros(8000 * 60, np.float32))
    assert path.stat().st_size < 200_000
    assert "longer than 600 s" in _sound_refused(path, probe_audio)

    # STREAMINFO's number of samples: 36 bits, the last 32 of them here.
    data = bytearray(path.read_bytes())
    data[22:26] = struct.pack(">I", 8000 * 20)
    path.write_bytes(data)
    assert "longer than 600 s" in _sound_refused(path, load_audio)


def _sound_refused(path: Path, read) -> str:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        read(path, limits=LIMITS)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 100
    return str(caught.value)


def test_cover_art_is_no_video_and_a_huge_one_does_no_harm(tmp_path: Path):
    sound = make_sound(tmp_path / "s.wav", 0.5)
    with_cover = tmp_path / "cover.flac"
    soundfile.write(with_cover, *soundfile.read(sound))
    data = with_cover.read_bytes()
    png = png_bomb(tmp_path / "bomb.png", 30_000, 30_000).read_bytes()
    block = struct.pack(">II", 3, 9) + b"image/png" + struct.pack(">IIIIII", 0, 30000, 30000, 24, 0, len(png)) + png
    # After "fLaC" and STREAMINFO (38 bytes with its header), which must not be the last block then.
    head = bytearray(data[:42])
    head[4] &= 0x7F
    block = bytes([6]) + struct.pack(">I", len(block))[1:] + block
    with_cover.write_bytes(bytes(head) + block + data[42:])

    with pytest.raises(InputError, match="no video stream"):
        probe_video(with_cover, LIMITS)
    assert load_audio(with_cover, limits=LIMITS).size > 7000


def test_special_files_are_not_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")

    for path in (tmp_path / "pipe.mp4", tmp_path / "zero.mp4"):
        assert "not a regular file" in refused(path)


def test_a_sound_that_turns_out_bad_while_writing_leaves_nothing(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.4, size=(96, 80))
    data = source.read_bytes()
    # The description of the AAC sound becomes nonsense.
    place = data.find(b"esds")
    source.write_bytes(data[: place + 20] + b"\xff" * 20 + data[place + 40 :])
    (tmp_path / "results").mkdir()

    try:
        info = probe_video(make_video(tmp_path / "plain.mp4", 0.2, size=(96, 80)))
        with VideoWriter(tmp_path / "results" / "out.mkv", info, audio_from=source) as writer:
            for frame in fitted_frames(tmp_path / "plain.mp4"):
                writer.write(frame)
    except InputError as error:
        assert str(source) in str(error)
        assert not list((tmp_path / "results").iterdir())
