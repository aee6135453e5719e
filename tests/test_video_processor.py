"""Video in and out: what a viewer and a player see of real small files."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from audio_processor import load_audio, probe_audio
from tests.footage import (
    bad_file,
    face_frame,
    lag_seconds,
    make_portrait,
    make_sound,
    make_video,
    read_number,
)
from utils.helpers import InputError
from utils.planes import plane_arrays
from video_processor import MediaLimits, Patch, VideoReader, VideoWriter, fitted_frames, probe_video

NTSC = Fraction(30000, 1001)


def read_all(path: Path) -> list:
    with VideoReader(path) as reader:
        return list(reader)


def numbers(frames: list) -> list[int]:
    return [read_number(frame.image) for frame in frames]


def copy_video(source: Path, target: Path, patch: Patch | None = None, **options) -> Path:
    """Write every frame of a video again, with the same patch on each."""
    with VideoWriter(target, probe_video(source), **options) as writer:
        for frame in fitted_frames(source):
            writer.write(frame, patch)
    return target


def red_patch(x: int, y: int, width: int = 40, height: int = 30) -> Patch:
    colour = np.broadcast_to(np.uint8([230, 20, 40]), (height, width, 3))
    return Patch(x, y, colour, np.ones((height, width), np.float32))


def soft_patch(x: int, y: int, width: int, height: int) -> Patch:
    """Noise under an ellipse that fades out, with exact zeros outside."""
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return Patch(x, y, image, np.clip(1.2 - 1.4 * np.hypot(rows, columns), 0, 1).astype(np.float32))


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [bytes(packet) for packet in container.demux(stream) if packet.size]


# Reading


def test_probe_tells_size_rate_length_and_colour(tmp_path: Path):
    info = probe_video(make_video(tmp_path / "clip.mp4", 1.0, NTSC, size=(322, 240)))

    assert (info.width, info.height, info.rotation, info.mirrored) == (322, 240, 0, False)
    assert info.fps == NTSC and info.frame_count == 30
    assert info.duration == pytest.approx(30 / NTSC, abs=0.01)
    assert (info.colour.range, info.colour.matrix, info.colour.primaries) == (1, 1, 1)
    assert info.has_audio and not info.is_image and info.pix_fmt == "yuv420p"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov"])
def test_frames_come_in_order_with_their_times_and_colours(tmp_path: Path, name: str):
    frames = read_all(make_video(tmp_path / name, 1.0, NTSC, numbered=True))

    assert numbers(frames) == [frame.index for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(30) / float(NTSC), atol=1e-3)
    difference = frames[12].image[:280].astype(int) - face_frame(frames[12].time)[:280]
    assert np.abs(difference).mean() < 4 and np.abs(difference.mean(axis=(0, 1))).max() < 0.6


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("full_range", [False, True])
def test_colours_follow_the_tags_of_the_file(tmp_path: Path, matrix: int, full_range: bool):
    path = make_video(tmp_path / "clip.mp4", 0.2, matrix=matrix, full_range=full_range)

    difference = read_all(path)[0].image.astype(int) - face_frame(0.0)

    # FFmpeg rounds full-range chroma down when the test video is made; a wrong tag gives more.
    assert np.abs(difference.mean(axis=(0, 1))).max() < 1.0


@pytest.mark.parametrize(
    ("rotation", "mirrored"), [(90, False), (180, False), (270, False), (0, True), (90, True), (270, True)]
)
def test_rotated_video_is_read_upright(tmp_path: Path, rotation: int, mirrored: bool):
    path = make_video(tmp_path / "phone.mp4", 0.2, size=(320, 240), rotation=rotation, mirrored=mirrored)

    info, frames = probe_video(path), read_all(path)

    assert (info.width, info.height, info.rotation, info.mirrored) == (320, 240, rotation, mirrored)
    assert np.abs(frames[0].image.astype(int) - face_frame(0.0, (320, 240))).mean() < 4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_portrait_is_one_upright_frame(tmp_path: Path, suffix: str, orientation: int):
    path = make_portrait(tmp_path / f"me{suffix}", (200, 300), orientation)

    info, frames = probe_video(path), read_all(path)

    assert (info.width, info.height, info.is_image, info.has_audio) == (200, 300, True, False)
    assert len(frames) == 1
    assert np.abs(frames[0].image.astype(int) - face_frame(0.0, (200, 300))).mean() < 3


def test_names_with_signs_that_ffmpeg_reads_as_patterns(tmp_path: Path):
    for name in ("a%03d.png", "concat:x.png"):
        assert probe_video(make_portrait(tmp_path / name)).is_image
    assert probe_video(make_video(tmp_path / "http:%d.mp4", 0.2)).frame_count == 5


# Writing


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
def test_written_video_keeps_size_times_tags_and_picture(tmp_path: Path, name: str):
    source = make_video(tmp_path / "in.mp4", 0.5, NTSC, size=(322, 240), numbered=True)

    target = copy_video(source, tmp_path / name, audio_from=source)

    before, after = probe_video(source), probe_video(target)
    assert (after.width, after.height, after.colour) == (before.width, before.height, before.colour)
    frames, originals = read_all(target), read_all(source)
    assert numbers(frames) == numbers(originals)
    # Matroska counts in milliseconds.
    np.testing.assert_allclose([f.time for f in frames], [f.time for f in originals], atol=6e-4)
    assert after.duration == pytest.approx(before.duration, abs=0.02)
    assert np.abs(frames[5].image.astype(int) - originals[5].image).mean() < 2.5


def test_variable_frame_times_are_kept(tmp_path: Path):
    times = [0.0, 0.02, 0.1, 0.15, 0.31, 0.35, 0.36, 0.5]
    source = make_video(tmp_path / "vfr.mp4", times=times, sound=False)

    frames = read_all(copy_video(source, tmp_path / "out.mp4"))

    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-4)


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
@pytest.mark.parametrize(("rotation", "mirrored"), [(90, False), (270, False), (90, True)])
def test_rotation_is_kept_and_patches_are_placed_upright(
    tmp_path: Path, name: str, rotation: int, mirrored: bool
):
    source = make_video(tmp_path / "phone.mp4", 0.12, size=(320, 240), rotation=rotation, mirrored=mirrored)

    target = copy_video(source, tmp_path / name, red_patch(200, 20))

    info = probe_video(target)
    assert (info.width, info.height, info.rotation, info.mirrored) == (320, 240, rotation, mirrored)
    image = read_all(target)[-1].image
    assert np.abs(image[24:46, 204:236].astype(int) - [230, 20, 40]).max() < 30
    outside = np.abs(image.astype(int) - read_all(source)[-1].image).max(axis=-1)
    outside[16:54, 196:244] = 0
    assert np.percentile(outside, 99) < 25


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuvj420p", "nv12"])
@pytest.mark.parametrize("rotation", [0, 90])
def test_lossless_output_changes_nothing_where_alpha_is_zero(tmp_path: Path, pix_fmt: str, rotation: int):
    source = make_video(tmp_path / "in.mp4", 0.12, size=(246, 182), pix_fmt=pix_fmt, rotation=rotation)
    patch = soft_patch(71, 33, 61, 47)

    target = copy_video(source, tmp_path / "out.mkv", patch, codec="ffv1", audio_from=source)

    inside = np.zeros((182, 246), bool)
    inside[33:80, 71:132] = patch.alpha > 0
    inside = np.rot90(inside, -rotation // 90)
    changed_inside = 0
    for original, written in zip(read_all(source), read_all(target), strict=True):
        expected = original.raw.reformat(format="yuv420p") if pix_fmt == "nv12" else original.raw
        for before, after in zip(plane_arrays(expected), plane_arrays(written.raw), strict=True):
            step_y, step_x = inside.shape[0] // before.shape[0], inside.shape[1] // before.shape[1]
            # A chroma sample counts as inside only if all pixels that share it are.
            cells = inside.reshape(before.shape[0], step_y, before.shape[1], step_x).all(axis=(1, 3))
            np.testing.assert_array_equal(after[~cells], before[~cells])
            changed_inside += np.count_nonzero(after[cells] != before[cells])
    assert changed_inside > 1000


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p10le", "yuvj420p"])
@pytest.mark.parametrize("matrix", [1, 6])
def test_a_patch_that_shows_the_frame_itself_is_not_seen(tmp_path: Path, pix_fmt: str, matrix: int):
    full_range = pix_fmt.startswith("yuvj")
    source = make_video(
        tmp_path / "in.mp4", 0.04, pix_fmt=pix_fmt, matrix=matrix, full_range=full_range, sound=False
    )
    original = read_all(source)[0]
    patch = Patch(60, 60, original.image[60:260, 60:260], np.ones((200, 200), np.float32))

    written = read_all(copy_video(source, tmp_path / "out.mkv", patch, codec="ffv1"))[0]

    difference = (written.image.astype(int) - original.image)[60:260, 60:260]
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.25
    assert np.abs(difference).mean() < 1.5


def test_patch_over_the_edge_is_clipped_and_one_outside_is_ignored(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.12, size=(160, 120), sound=False)

    corner = read_all(copy_video(source, tmp_path / "corner.mkv", red_patch(-20, 105), codec="ffv1"))[0]
    nowhere = read_all(copy_video(source, tmp_path / "nowhere.mkv", red_patch(500, 20), codec="ffv1"))[0]

    assert np.abs(corner.image[108:, :18].astype(int) - [230, 20, 40]).max() < 12
    np.testing.assert_array_equal(nowhere.image, read_all(source)[0].image)


@pytest.mark.parametrize(
    ("name", "codec", "size"),
    [("out.mp4", "auto", (160, 120)), ("out.mkv", "auto", (160, 120)), ("out.mp4", "h264", (161, 121))]
    + [("out.webm", "auto", (161, 121)), ("out.mkv", "ffv1", (161, 121))],
)
def test_odd_sizes_are_kept_or_cut_to_even_ones_for_players(
    tmp_path: Path, name: str, codec: str, size: tuple[int, int]
):
    source = make_video(tmp_path / "odd.webm", 0.12, size=(161, 121), codec="libvpx-vp9", sound=False)

    target = copy_video(source, tmp_path / name, red_patch(101, 51), codec=codec)

    info = probe_video(target)
    assert (info.width, info.height) == size
    image = read_all(target)[0].image
    assert np.abs(image[56:76, 106:136].astype(int) - [230, 20, 40]).max() < 30
    before = read_all(source)[0].image[:48, : size[0]]
    assert np.percentile(np.abs(image[:48].astype(int) - before), 99) < 25
    said = [note for note in VideoWriter(target, probe_video(source), codec).notes if "161x121" in note]
    assert bool(said) == (size == (160, 120))


@pytest.mark.parametrize(("pix_fmt", "rotation"), [("yuv444p", 0), ("yuv422p", 0), ("yuv420p", 90), ("rgb24", 0)])
@pytest.mark.parametrize("crf", [0, 16])
def test_the_default_output_is_of_a_kind_that_every_player_shows(
    tmp_path: Path, pix_fmt: str, rotation: int, crf: int
):
    source = make_video(
        tmp_path / "in.mkv",
        0.2,
        size=(321, 241) if pix_fmt != "yuv422p" else (322, 241),
        pix_fmt="yuv444p" if rotation else pix_fmt,
        codec="libx264rgb" if pix_fmt == "rgb24" else "ffv1",
        rotation=rotation,
        sound=False,
    )

    target = copy_video(source, tmp_path / "out.mp4", crf=crf)

    with av.open(str(target)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.profile, context.pix_fmt) == ("h264", "High", "yuv420p")
        assert context.width % 2 == context.height % 2 == 0
        assert context.extradata[3] <= 21  # level 2.1 holds 352x288 at 25 frames a second


@pytest.mark.parametrize("size", [(200, 300), (201, 301)])  # turned; players want even sides
def test_portrait_becomes_a_25_fps_video_of_the_same_size_and_colours(tmp_path: Path, size: tuple[int, int]):
    source = make_portrait(tmp_path / "me.jpg", size, orientation=6)
    speech = make_sound(tmp_path / "speech.wav", 0.5)

    with VideoWriter(tmp_path / "out.mp4", probe_video(source), audio_from=speech) as writer:
        for frame in fitted_frames(source, 0.5):
            writer.write(frame)

    frames = read_all(tmp_path / "out.mp4")
    width, height = (side // 2 * 2 for side in size)
    assert len(frames) == 13 and frames[0].image.shape == (height, width, 3)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(13) / 25, atol=1e-3)
    difference = frames[6].image.astype(int) - read_all(source)[0].image[:height, :width]
    assert np.abs(difference.mean(axis=(0, 1))).max() < 0.6


# Sound


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv"])
def test_sound_packets_are_copied_untouched(tmp_path: Path, name: str):
    source = make_video(tmp_path / "in.mp4", 1.0)

    target = copy_video(source, tmp_path / name, audio_from=source)

    assert packets(target, "audio") == packets(source, "audio")
    # Sound and pictures are as far apart as before: Matroska's milliseconds allow a few samples.
    assert abs(lag_seconds(load_audio(target), load_audio(source))) < 0.001


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("out.mp4", "aac", 44100),
        ("out.mov", "pcm_s16le", 44100),
        ("out.mkv", "pcm_s16le", 44100),
        ("out.webm", "opus", 48000),
    ],
)
def test_wav_is_copied_where_it_fits_and_encoded_elsewhere(tmp_path: Path, name: str, codec: str, rate: int):
    source = make_video(tmp_path / "in.mp4", 0.6)
    speech = make_sound(tmp_path / "speech.wav", 0.6, channels=2)

    target = copy_video(source, tmp_path / name, audio_from=speech)

    info = probe_audio(target)
    assert (info.codec, info.sample_rate, info.channels) == (codec, rate, 2)
    written, original = load_audio(target), load_audio(speech)
    count = min(written.size, original.size)
    assert count >= 0.55 * 16000
    assert np.corrcoef(written[:count], original[:count])[0, 1] > 0.9


def test_delayed_sound_of_the_source_stays_delayed(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 1.0, sound_delay=0.3)

    written = load_audio(copy_video(source, tmp_path / "out.mkv", audio_from=source))

    assert np.abs(written[:4000]).max() < 0.01
    assert np.abs(written[4800:16000]).max() > 0.1


def test_sound_can_be_cut(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.4, sound=False)
    speech = make_sound(tmp_path / "speech.wav", 2.0)

    for name in ("out.mp4", "out.mkv"):
        target = copy_video(source, tmp_path / name, audio_from=speech, audio_duration=0.4)
        assert load_audio(target).size / 16000 == pytest.approx(0.4, abs=0.1)


# Playing longer or shorter


def played(path: Path, *args) -> list[int]:
    return numbers(list(fitted_frames(path, *args)))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_bounce_goes_back_and_forth_without_repeating_the_turning_frames(tmp_path: Path, codec: str):
    path = make_video(tmp_path / "in.mp4", 0.4, numbered=True, codec=codec, keyframe_interval=4)

    frames = list(fitted_frames(path, 1.2, "bounce"))

    there, back = list(range(10)), list(range(8, -1, -1))
    assert numbers(frames) == (there + back + there[1:] + back)[:30]
    assert [frame.source_index for frame in frames] == numbers(frames)
    assert [frame.index for frame in frames] == list(range(30))
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 1 / 25, atol=1e-6)


def test_bounce_keeps_the_intervals_of_a_variable_frame_rate(tmp_path: Path):
    path = make_video(tmp_path / "vfr.mp4", times=[0.0, 0.1, 0.12, 0.2], sound=False, numbered=True)

    frames = list(fitted_frames(path, 0.45, "bounce"))

    assert numbers(frames) == [0, 1, 2, 3, 2, 1, 0]
    expected = [0.0, 0.1, 0.12, 0.2, 0.28, 0.3, 0.4]
    np.testing.assert_allclose([frame.time for frame in frames], expected, atol=1e-4)


def test_loop_freeze_and_cut(tmp_path: Path):
    path = make_video(tmp_path / "in.mp4", 0.2, numbered=True)

    assert played(path, 0.48, "loop") == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert played(path, 0.32, "freeze") == [0, 1, 2, 3, 4, 4, 4, 4]
    assert played(path, 0.48, "cut") == [0, 1, 2, 3, 4]
    for fit in ("loop", "freeze"):
        times = [frame.time for frame in fitted_frames(path, 0.48, fit)]
        np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-6)


def test_shorter_speech_keeps_or_cuts_the_rest(tmp_path: Path):
    path = make_video(tmp_path / "in.mp4", 0.4, numbered=True)

    assert played(path, 0.2, "bounce", "keep") == list(range(10))
    assert played(path, 0.2, "bounce", "cut") == list(range(5))
    assert played(path) == list(range(10))


def test_playing_backwards_needs_no_more_memory_than_a_piece(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("video.playback._BACKWARD_BYTES", 5 * 3 * 320 * 320)
    path = make_video(tmp_path / "in.mp4", 2.0, numbered=True, keyframe_interval=50, sound=False)
    tracemalloc.start()

    shown = [read_number(frame.image) for frame in fitted_frames(path, 4.0, "bounce")]

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert shown == [*range(50), *range(48, -1, -1), 1]
    assert peak < 12 * 320 * 320 * 3


def test_unknown_words_are_refused(tmp_path: Path):
    path = make_video(tmp_path / "in.mp4", 0.12)

    for arguments in ((1.0, "stretch"), (1.0, "loop", "fade")):
        with pytest.raises(InputError, match="use"):
            list(fitted_frames(path, *arguments))


# Bad input


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("missing", "no file"),
        ("folder", "folder"),
        ("empty", "empty"),
        ("text", "no video or sound"),
        ("no picture", "no video stream"),
        ("no index", "cut off"),
        ("broken off", "cut off"),
        ("broken off mkv", "cut off"),
    ],
)
def test_bad_files_are_refused_in_one_sentence_and_leave_nothing(tmp_path: Path, kind: str, word: str):
    path = bad_file(kind, tmp_path)
    target = tmp_path / "results" / "out.mp4"

    with pytest.raises(InputError) as caught:
        copy_video(path, target)

    message = str(caught.value)
    assert word in message and str(path) in message and "\n" not in message
    assert not target.parent.exists() or not list(target.parent.iterdir())


def test_a_damaged_middle_costs_frames_but_not_the_video(tmp_path: Path):
    path = make_video(tmp_path / "in.mp4", 2.0, sound=False, keyframe_interval=10)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)

    times = [frame.time for frame in read_all(path)]

    assert len(times) > 30 and np.all(np.diff(times) > 0)


def test_limits(tmp_path: Path):
    video = make_video(tmp_path / "in.mp4", 1.0)
    portrait = make_portrait(tmp_path / "me.png")

    for path in (video, portrait):
        with pytest.raises(InputError, match="too large"):
            probe_video(path, MediaLimits(max_pixels=10000))
    with pytest.raises(InputError, match="longer than"):
        probe_video(video, MediaLimits(max_duration_s=0.5))


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("out.avi", {}, ".mp4"),
        ("out.mp4", {"codec": "ffv1"}, ".mkv"),
        ("out.mp4", {"codec": "prores"}, "mov"),
        ("out.mp4", {"codec": "dnxhd"}, "h264"),
    ],
)
def test_impossible_outputs_are_refused(tmp_path: Path, name: str, options: dict, word: str):
    source = make_video(tmp_path / "in.mp4", 0.12)

    with pytest.raises(InputError, match=word):
        copy_video(source, tmp_path / name, **options)

    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


@pytest.mark.parametrize("kind", ["no sound", "zero length", "text"])
def test_bad_sound_leaves_nothing(tmp_path: Path, kind: str):
    source = make_video(tmp_path / "in.mp4", 0.12)
    sound = bad_file(kind, tmp_path)
    folder = tmp_path / "results"

    with pytest.raises(InputError):
        copy_video(source, folder / "out.mp4", audio_from=sound)

    assert not list(folder.iterdir())


def damaged_sound(source: Path, target: Path) -> Path:
    """The sound of a video as .aac, in whose middle the headers name a sample rate that there is not."""
    with av.open(str(source)) as read, av.open(str(target), "w") as written:
        stream = written.add_stream_from_template(read.streams.audio[0])
        for packet in (packet for packet in read.demux(audio=0) if packet.dts is not None):
            packet.stream = stream
            written.mux(packet)
    head, *parts = target.read_bytes().split(b"\xff\xf1")
    parts[10:20] = [bytes([part[0] | 0x3C]) + part[1:] for part in parts[10:20]]
    target.write_bytes(b"\xff\xf1".join([head, *parts]))
    return target


@pytest.mark.parametrize(
    ("sound", "late_s", "said"),
    [
        ("in.mp4", 10**6, "The pictures cannot be written as libx264 into .mp4"),
        ("speech.wav", 10**6, "The pictures cannot be written"),
        (None, 10**6, "The pictures cannot be written"),
        ("damaged.aac", 0, "damaged.aac is damaged or cut off"),
    ],
)
def test_what_a_container_does_not_take_is_named(tmp_path: Path, sound: str | None, late_s: int, said: str):
    """Pictures whose times lie further apart than MP4 can count, and a sound that cannot be copied."""
    source = make_video(tmp_path / "in.mp4", 0.8)
    make_sound(tmp_path / "speech.wav", 0.8)
    damaged_sound(source, tmp_path / "damaged.aac")

    with (
        pytest.raises(InputError, match=said),
        VideoWriter(tmp_path / "out.mp4", probe_video(source), audio_from=sound and tmp_path / sound) as writer,
    ):
        for frame in fitted_frames(source):
            writer.write(replace(frame, time=frame.time + late_s * (frame.index > 10)))

    assert not (tmp_path / "out.mp4").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.12)
    (tmp_path / "file").write_text("in the way")

    for target in (tmp_path / "file" / "out.mp4", Path("/proc/out.mp4"), tmp_path):
        with pytest.raises(InputError):
            copy_video(source, target.with_suffix(".mp4") if target != tmp_path else target)


def test_an_exception_in_the_block_leaves_nothing_and_an_old_result_as_it_was(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.4)
    target = tmp_path / "results" / "out.mp4"
    target.parent.mkdir()
    target.write_text("old result")

    with (
        pytest.raises(RuntimeError, match="stop"),
        VideoWriter(target, probe_video(source), audio_from=source) as writer,
    ):
        for frame in fitted_frames(source):
            writer.write(frame)
            if frame.index == 5:
                raise RuntimeError("stop")

    assert [path.name for path in target.parent.iterdir()] == ["out.mp4"]
    assert target.read_text() == "old result"


def test_no_frame_at_all_is_an_error(tmp_path: Path):
    source = make_video(tmp_path / "in.mp4", 0.12)

    with pytest.raises(InputError, match="no frame"), VideoWriter(tmp_path / "out.mp4", probe_video(source)):
        pass

    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_the_shortest_clips_are_written(frames: int, tmp_path: Path) -> None:
    """x265 gives wrong times for clips of one or two frames, which MP4 does not take."""
    source, sound = make_video(tmp_path / "in.mp4", 0.2), make_sound(tmp_path / "s.wav", 0.4)
    for name, codec in (("a.mp4", "hevc"), ("b.mkv", "hevc"), ("c.mp4", "h264")):
        with (
            VideoReader(source) as reader,
            VideoWriter(tmp_path / name, probe_video(source), codec, audio_from=sound) as writer,
        ):
            for frame, _ in zip(reader, range(frames), strict=False):
                writer.write(frame)
        assert len(read_all(tmp_path / name)) == frames
