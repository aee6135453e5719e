"""Subtitle files as scripts: each line is spoken at its time, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from language_processor import LanguageProcessor, SpokenText
from pipeline.text_file import read_text
from tests.conftest import REPO
from utils.helpers import InputError
from voices.dubbing import FASTEST, SLOWEST, Line, read_script
from voices.espeak import EspeakEngine

SRT = """1
00:00:01,000 --> 00:00:03,000
- Good morning,
- <i>everybody</i>!

2
00:00:04,500 --> 00:00:06,000
[door slams] ♪

3
00:00:05,250 --> 00:00:07,000
It costs $5 million.
"""
VTT = """WEBVTT

NOTE nobody says this

00:01.000 --> 00:03.000 align:start
Good morning, everybody!

third
00:05.250 --> 00:07.000
It costs $5 million.
"""
ASS = """[Script Info]
ScriptType: v4.00+

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,nobody says this
Dialogue: 0,0:00:05.25,0:00:07.00,Default,,0,0,0,,{\\\\b1}It costs{\\\\b0} $5 million.
Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,Good morning,\\\\Neverybody!
Dialogue: 0,0:00:01.00,0:00:03.00,Default,,0,0,0,,{\\\\p1}m 0 0 l 100 0{\\\\p0}
""".replace("\\\\", "\\")
LINES = (Line("Good morning, everybody!", 1.0, 3.0), Line("It costs $5 million.", 5.25, 7.0))


@pytest.fixture(scope="module")
def speaker() -> LanguageProcessor:
    weights = REPO / "pretrained"
    return LanguageProcessor(weights, weights / "lite" / "phonemes", [EspeakEngine()])


@pytest.mark.parametrize("script", [SRT, VTT, ASS, "\ufeff\n" + SRT, SRT.replace("\n", "\r\n")])
def test_subtitle_files_are_scripts(script: str) -> None:
    assert read_script(script) == LINES


@pytest.mark.parametrize(
    "text", ["Hello.", "", "1\nis a number --> and so on", "WEBVTTX is no word", "At 00:01:02,000 we start."]
)
def test_other_texts_are_none(text: str) -> None:
    assert read_script(text) == ()


@pytest.mark.parametrize(
    ("script", "named"),
    [
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n♪\n", r"subtitles \(.vtt\) hold nothing that can be spoken"),
        ("[Script Info]\nScriptType: v4.00+\n", r"subtitles \(.ass\) hold nothing"),
        (ASS.replace("0:00:05.25", "soon"), r"looks like subtitles \(.ass\)"),
    ],
)
def test_broken_scripts_are_one_sentence(script: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_script(script)


def test_a_subtitle_file_without_subtitles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "film.SRT").write_text("{25}{50}Good morning!\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"film.SRT holds no subtitles .*\.srt, \.vtt and \.ass"):
        read_text(tmp_path / "film.SRT")


@pytest.mark.parametrize(("name", "script"), [("film.srt", SRT), ("film.vtt", VTT), ("film.ass", ASS)])
def test_every_line_is_heard_at_its_time(speaker: LanguageProcessor, name: str, script: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(script, encoding="utf-8")
    said = speaker.speak_to_file(SpokenText(read_text(tmp_path / name), "en"), tmp_path / "said.wav")
    assert [s.text for s in said.sentences] == [line.text for line in LINES]
    assert said.notes == ()
    sound, rate = soundfile.read(said.audio)
    heard = np.abs(sound) > 0.02
    for line, sentence in zip(LINES, said.sentences, strict=True):
        assert sentence.start == pytest.approx(line.start, abs=0.001)
        assert sentence.end == pytest.approx(line.end, abs=0.25)
        assert heard[round((line.start + 0.1) * rate) : round((line.end - 0.4) * rate)].mean() > 0.2
        phonemes = [p for p in said.phonemes if line.start <= p.start < line.end]
        assert len(phonemes) > 10
    assert not heard[: rate - 1].any() and not heard[round(3.3 * rate) : round(5.25 * rate)].any()


def test_lines_are_squeezed_and_stretched_within_limits(speaker: LanguageProcessor) -> None:
    usual = speaker.synthesize("A sentence of some length that somebody says.", "en").sentences[0].end

    def said(room: float) -> float:
        times = f"00:00:00,000 --> 00:00:{room:06.3f}".replace(".", ",")
        spoken = speaker.synthesize(f"1\n{times}\nA sentence of some length that somebody says.\n", "en")
        return spoken.sentences[0].end

    assert said(usual / 1.25) == pytest.approx(usual / 1.25, abs=0.15)
    assert said(usual / SLOWEST * 0.95) == pytest.approx(usual / SLOWEST * 0.95, abs=0.15)
    assert said(usual / 4) == pytest.approx(usual / FASTEST, rel=0.15)
    assert said(usual * 4) == pytest.approx(usual / SLOWEST, rel=0.15)


def test_a_line_that_does_not_fit_is_said_and_the_next_one_waits(speaker: LanguageProcessor, tmp_path: Path) -> None:
    blocks = [
        f"{k}\n00:00:{k:02},000 --> 00:00:{k:02},500\nThis line number {k} is much too long for its half a second.\n"
        for k in range(1, 8)
    ]
    said = speaker.speak_to_file(SpokenText("\n".join(blocks), "en"), tmp_path / "said.wav")
    assert said.notes[0].startswith("The line at 0:00:01.0 (“This line number 1 is much too long")
    assert "s after its time" in said.notes[0]
    assert said.notes[-1].startswith("2 more lines end after their time; the latest of all by ")
    assert len(said.notes) == 6
    pairs = zip(said.sentences, said.sentences[1:], strict=False)
    assert all(later.start >= earlier.end - 1e-3 for earlier, later in pairs)


def test_a_script_that_lasts_too_long_leaves_no_file_and_fills_no_memory(
    speaker: LanguageProcessor, tmp_path: Path
) -> None:
    script = "1\n90:00:00,000 --> 90:00:02,000\nHello.\n"
    with pytest.raises(InputError, match="longer than 20 s"):
        speaker.speak_to_file(SpokenText(script, "en"), tmp_path / "said.wav", longest=20.0)
    assert not list(tmp_path.iterdir())
    parts = speaker.stream(script, "en")
    assert max(next(parts).duration for _ in range(5)) <= 10.0


def test_a_script_with_a_sound_is_its_text(speaker: LanguageProcessor) -> None:
    assert speaker.phonemes(SRT, "en") == speaker.phonemes("Good morning, everybody!\nIt costs $5 million.", "en")
