"""What a video carries beside picture and sound, and its old sound: kept as far as the new file can hold it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch

from audio_processor import load_audio, write_mix
from pipeline import LipSyncPipeline
from pipeline.job import SYNTHETIC_MARK
from pipeline.options import Options
from tests.footage import face_frame, make_sound, make_video
from tests.tiny_weights import tiny_config
from utils.config import load_config
from utils.helpers import InputError
from video_processor import VideoWriter, fitted_frames, probe_video

RATE = 16000
WORDS = "1\n00:00:00,100 --> 00:00:00,400\nHello <i>there</i>\n\n2\n00:00:00,500 --> 00:00:00,700\nBye\n"
MARK = SYNTHETIC_MARK["comment"]


def rich_video(path: Path, language: str = "fre") -> Path:
    """0.8 s with title, artist, comment, place, two chapters, subtitles and a timecode."""
    (path.parent / "words.srt").write_text(WORDS, encoding="utf-8")
    with av.open(str(path.parent / "words.srt")) as words, av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 96, 96, "yuv420p"
        picture.metadata["timecode"] = "01:02:03:04"
        text = words.streams.subtitles[0]
        subtitles = container.add_stream_from_template(text)
        subtitles.metadata["language"] = language
        base = Fraction(1, 1000)
        container.set_chapters(
            [
                {"id": 1, "start": 0, "end": 400, "time_base": base, "metadata": {"title": "One"}},
                {"id": 2, "start": 400, "end": 800, "time_base": base, "metadata": {"title": "Two"}},
            ]
        )
        container.metadata.update(title="A day", artist="Ada", comment="From the attic", location="+52.5+013.4/")
        for index in range(20):
            frame = av.VideoFrame.from_ndarray(face_frame(index / 25, (96, 96)))
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        for packet in words.demux(text):
            if packet.dts is not None:
                packet.stream = subtitles
                container.mux(packet)
    return path


def copied(source: Path, target: Path) -> VideoWriter:
    with VideoWriter(target, probe_video(source), tags=SYNTHETIC_MARK, copy_from=source) as writer:
        for frame in fitted_frames(source):
            writer.write(frame)
    return writer


def words_of(container: av.container.InputContainer) -> list[tuple[float, str]]:
    stream = container.streams.subtitles[0]
    mov = stream.codec_context.name == "mov_text"
    found = [
        (float(packet.pts * packet.time_base), bytes(packet)[2 if mov else 0 :].decode())
        for packet in container.demux(stream)
        if packet.pts is not None
    ]
    return [(time, text) for time, text in found if text]


@pytest.mark.parametrize("name", ["out.mp4", "out.mov", "out.mkv", "out.webm"])
def test_what_a_video_carries_is_copied(tmp_path: Path, name: str):
    writer = copied(rich_video(tmp_path / "in.mkv"), tmp_path / name)

    assert any("subtitles" in note for note in writer.notes)
    with av.open(str(tmp_path / name)) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert (tags["title"], tags["artist"]) == ("A day", "Ada")
        assert tags["comment"].startswith("From the attic") and tags["comment"].endswith(MARK)
        assert "location" not in tags
        chapters = [(float(c["start"] * c["time_base"]), c["metadata"]["title"]) for c in container.chapters()]
        assert chapters == [(0, "One"), (0.4, "Two")]
        picture = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
        assert picture["timecode"] == "01:02:03:04"
        subtitles = container.streams.subtitles[0]
        assert name == "out.mov" or subtitles.metadata["language"] == "fre"
        italic = "Hello there" if name in ("out.mp4", "out.mov") else "Hello <i>there</i>"
        assert words_of(container) == [(pytest.approx(0.1), italic), (pytest.approx(0.5), "Bye")]


def test_what_was_copied_is_copied_again_and_the_mark_is_not_doubled(tmp_path: Path):
    copied(rich_video(tmp_path / "in.mkv"), tmp_path / "once.mp4")
    copied(tmp_path / "once.mp4", tmp_path / "twice.mkv")

    with av.open(str(tmp_path / "twice.mkv")) as container:
        tags = {key.lower(): value for key, value in container.metadata.items()}
        assert tags["comment"].count(MARK) == 1 and tags["comment"].startswith("From the attic")
        assert [text for _, text in words_of(container)] == ["Hello there", "Bye"]
        assert len(container.chapters()) == 2


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_the_language_of_the_sound_is_told(tmp_path: Path, name: str):
    make_video(tmp_path / "in.mp4", 0.4, size=(64, 64))
    with av.open(str(tmp_path / "s.mka"), "w", format="matroska") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        stream.metadata["language"] = "ger"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 22050), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

    with VideoWriter(tmp_path / name, probe_video(tmp_path / "in.mp4"), audio_from=tmp_path / "s.mka") as writer:
        for frame in fitted_frames(tmp_path / "in.mp4"):
            writer.write(frame)

    with av.open(str(tmp_path / name)) as container:
        assert container.streams.audio[0].metadata["language"] == "ger"


def tone(path: Path, hertz: float, seconds: float, level: float, rate: int, channels: int = 1) -> Path:
    wave = level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.repeat(wave[:, None], channels, 1), rate)
    return path


def level_at(samples: np.ndarray, hertz: float) -> float:
    """Amplitude of a tone in samples at 16 kHz."""
    time = np.arange(samples.size) / RATE
    return float(2 * abs(np.mean(samples * np.exp(-2j * np.pi * hertz * time))))


def test_the_old_sound_lies_under_the_voice_and_goes_on_behind_it(tmp_path: Path):
    voice = tone(tmp_path / "voice.wav", 400, 1.5, 0.5, 16000)
    under = tone(tmp_path / "under.wav", 1000, 1.1, 0.4, 44100, 2)

    write_mix(voice, under, -12.0, 3.0, tmp_path / "mixed.wav")

    heard = load_audio(tmp_path / "mixed.wav")
    assert heard.size == 3 * RATE
    assert level_at(heard[: int(1.5 * RATE)], 400) == pytest.approx(0.5, rel=0.02)
    assert level_at(heard[RATE // 10 : RATE], 1000) == pytest.approx(0.4 * 10**-0.6, rel=0.03)
    assert level_at(heard[int(1.6 * RATE) :], 400) < 0.01
    # It begins again without a gap: each tenth of a second has its tone, softer only at the seams.
    pieces = [level_at(piece, 1000) for piece in np.split(heard, 30)]
    assert min(pieces) > 0.03 and np.median(pieces) == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("keep", ["none", "original", "mix:-6dB"])
def test_keep_audio_decides_what_is_heard(tmp_path: Path, tiny_weights: Path, keep: str):
    make_video(tmp_path / "plain.mp4", 0.6, sound=False)
    tone(tmp_path / "old.wav", 1000, 0.6, 0.4, 44100)
    with VideoWriter(
        tmp_path / "in.mp4", probe_video(tmp_path / "plain.mp4"), audio_from=tmp_path / "old.wav"
    ) as writer:
        for frame in fitted_frames(tmp_path / "plain.mp4"):
            writer.write(frame)
    voice = tone(tmp_path / "voice.wav", 400, 0.4, 0.5, 16000)
    lip_sync = LipSyncPipeline.load(load_config(tiny_config(tmp_path, tiny_weights)), torch.device("cpu"))

    lip_sync.run(tmp_path / "in.mp4", voice, tmp_path / "out.mp4", Options(steps=1, keep_audio=keep))

    heard = load_audio(tmp_path / "out.mp4")[RATE // 10 : 3 * RATE // 10]
    old = {"none": 0.0, "original": 0.4, "mix:-6dB": 0.2}[keep]
    assert level_at(heard, 1000) == pytest.approx(old, abs=0.04)
    assert level_at(heard, 400) == pytest.approx(0.0 if keep == "original" else 0.5, abs=0.06)


def test_keep_audio_that_cannot_be_is_refused(tmp_path: Path):
    from pipeline.options import check_inputs

    config = load_config(Path(__file__).resolve().parent.parent / "model_config.yaml")
    mute = make_video(tmp_path / "mute.mp4", 0.2, size=(64, 64), sound=False)
    speech = make_sound(tmp_path / "s.wav", 0.2)
    for wrong in ("all", "mix", "mix:3dB", "mix:-99dB"):
        with pytest.raises(InputError, match="keep-audio"):
            Options(keep_audio=wrong).check()
    with pytest.raises(InputError, match="no sound that could be kept"):
        check_inputs(mute, speech, tmp_path / "out.mp4", Options(keep_audio="mix:-12dB"), config.media)
