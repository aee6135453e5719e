"""Text on the command line: voices, subtitles, and a portrait that says a sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import app
from audio_processor import probe_audio
from models.phonemes import Phoneme
from pipeline.text_file import read_text
from tests.tiny_weights import tiny_config
from video_processor import probe_video
from voices.base import Sentence
from voices.subtitles import MAX_CUE, srt


def test_a_portrait_says_a_sentence_with_subtitles(
    tiny_weights: Path, example_portrait: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "said.mp4"
    config = tiny_config(tmp_path, tiny_weights)
    files = ["--video", str(example_portrait), "--output", str(output), "--config", str(config)]
    assert app.main([*files, "--text", "Hi, Bob. Bye!", "--voice", "espeak-male", "--speed", "1.5", "--srt"]) == 0
    assert "espeak-male" in capsys.readouterr().err
    info = probe_video(output)
    assert 0.5 < float(info.duration) < 4
    assert abs(probe_audio(output).duration - float(info.duration)) < 0.2
    cues = output.with_suffix(".srt").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^[A-Z].*$", cues) == ["Hi, Bob.", "Bye!"]
    assert {path.name for path in tmp_path.iterdir()} == {"said.mp4", "said.srt", config.name}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], "--audio, or a text"),
        (["--text", ""], "nothing that can be spoken"),
        (["--text", "Hi", "--lang", "xx"], "'xx' is not supported"),
        (["--text", "Hi", "--voice", "nobody"], "no voice 'nobody'"),
        (["--text", "Hi", "--speed", "9"], "speed 9"),
        (["--text-file", "nothing.txt"], "Cannot read the text file"),
        (["--text-file", "latin.txt"], "not UTF-8"),
        (["--audio", "speech.wav", "--srt"], "Subtitles need the text"),
    ],
)
def test_what_cannot_be_said_is_one_sentence(
    options: list[str],
    expected: str,
    example_portrait: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latin.txt").write_bytes("Käse".encode("latin-1"))
    assert app.main(["--video", str(example_portrait), "--output", str(tmp_path / "out.mp4"), *options]) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert expected in err
    assert "\n" not in err
    assert not (tmp_path / "out.mp4").exists()


def test_text_and_text_file_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["--video", "a", "--output", "b", "--text", "Hi", "--text-file", "c"])
    assert ended.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_voices_are_listed_without_naming_files(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["--mode", "cli", "--list-voices"])
    assert ended.value.code == 0
    listed = capsys.readouterr().out
    for language in ("English", "Chinese", "Japanese", "French", "German", "Spanish"):
        assert language in listed
    assert re.search(r"espeak-female +female +robotic", listed)


def test_subtitles_follow_the_phonemes() -> None:
    sentence = Sentence("one two three four five six seven eight nine ten " * 3, 1.0, 11.0)
    # Spoken slowly at first, then fast.
    times = [1 + 10 * (k / 100) ** 0.5 for k in range(101)]
    phonemes = [Phoneme("a", 5, a, b) for a, b in zip(times, times[1:], strict=False)]
    text = srt([Sentence("Short.", 0.0, 0.5), sentence, Sentence("Ende.", 3661.5, 3662.0)], phonemes)
    blocks = [block.split("\n") for block in text.strip().split("\n\n")]
    assert [int(block[0]) for block in blocks] == list(range(1, len(blocks) + 1))
    assert blocks[0][1:] == ["00:00:00,000 --> 00:00:00,500", "Short."]
    assert blocks[-1][1:] == ["01:01:01,500 --> 01:01:02,000", "Ende."]
    assert all(len(block[2]) <= MAX_CUE for block in blocks)
    assert " ".join(block[2] for block in blocks[1:-1]) == sentence.text.strip()
    # About half of the letters are in the first part, so it ends near the phoneme in the middle (8.07 s), not at 6 s.
    middle = blocks[1][1].split(" --> ")[1]
    assert "00:00:07,800" < middle < "00:00:08,400"
    assert blocks[2][1].startswith(middle)


def test_subtitles_without_spaces_are_parted_too() -> None:
    text = srt([Sentence("好" * 100, 0.0, 30.0)], [])
    parts = re.findall("好+", text)
    assert len(parts) >= 3
    assert "".join(parts) == "好" * 100
    assert max(map(len, parts)) <= MAX_CUE // 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_text_files_of_windows_are_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    mark = "\ufeff" if encoding == "utf-16-le" else ""
    path.write_bytes((mark + "Käse, 奶酪, сыр").encode(encoding))
    assert read_text(path) == "Käse, 奶酪, сыр"
