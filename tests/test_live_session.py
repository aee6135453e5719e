"""Sessions without a network: one clock, a queue that can be interrupted, and sound that never breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import pytest

from language_processor import LanguageProcessor, SpokenText
from models.phonemes import Phoneme
from pipeline import LipSyncPipeline, Options
from pipeline.captions import timed_words, words_of
from pipeline.host import Host
from pipeline.live_sound import PLAYED_RATE, Spoken, Streamed
from pipeline.session import Session
from pipeline.studio import Studio, StudioSettings
from tests import footage, threads
from tests.conftest import REPO
from tests.live_host import Recorder
from utils.helpers import InputError


@pytest.fixture(scope="module")
def language() -> LanguageProcessor:
    return LanguageProcessor(REPO / "pretrained", REPO / "pretrained" / "lite" / "phonemes")


@pytest.fixture
def studio(made_host: tuple[LipSyncPipeline, Host], language: LanguageProcessor) -> Iterator[Studio]:
    with threads.none_left("live"):
        studio = Studio(made_host[0].engine, language, StudioSettings(0.2, 20, 5.0), Options())
        yield studio
        studio.shut()


@pytest.fixture
def session(studio: Studio, made_host: tuple[LipSyncPipeline, Host]) -> Session:
    return studio.open(made_host[1])


@pytest.fixture
def recorder(session: Session) -> Recorder:
    recorder = Recorder()
    session.attach(recorder)
    return recorder


def loud(moment: object) -> bool:
    return np.abs(moment.sound.astype(int)).max() > 300


def pictures(recorder: Recorder) -> list[np.ndarray]:
    return [m.picture.to_ndarray(format="rgb24").astype(int) for m in list(recorder.moments) if m.picture]


def test_it_listens_says_a_text_and_listens_again(studio: Studio, session: Session, recorder: Recorder) -> None:
    recorder.wait(lambda r: len(r.moments) > 5)
    studio.say(session, SpokenText("Hello there. How are you?", "en"), tag="greeting")
    recorder.wait(lambda r: r.told("idle"))
    spoken = recorder.told("speaking")
    assert [event["text"] for event in spoken] == ["Hello there.", "How are you?"]
    assert {event["tag"] for event in spoken} == {"greeting"}
    assert [word["text"] for word in recorder.told("word")] == ["Hello", "there.", "How", "are", "you?"]
    moments = recorder.moments
    assert [moment.number for moment in moments] == list(range(len(moments)))
    # The sound has no holes, and words are told when they are heard.
    started = next(moment for moment in moments if loud(moment))
    assert 0 <= started.time - spoken[0]["time"] < 0.2
    first_word = recorder.told("word")[0]
    assert abs(first_word["start"] - started.time) < 0.15 and first_word["time"] <= first_word["start"] + 0.04
    assert all(len(moment.sound) == 1920 for moment in moments)


def test_the_picture_decodes_and_the_mouth_moves_only_while_speaking(
    studio: Studio, session: Session, recorder: Recorder, made_host: tuple[LipSyncPipeline, Host]
) -> None:
    recorder.wait(lambda r: len(r.moments) > 3)
    studio.play(session, footage.speech_like(1.0, 24000), 24000)
    recorder.wait(lambda r: r.told("idle"))
    decoder = av.CodecContext.create("h264", "r")
    decoded = []
    for moment in recorder.moments:
        if moment.packet:
            decoded += decoder.decode(av.Packet(moment.packet.data))
    assert (decoded[0].width, decoded[0].height) == (320, 320) and len(decoded) > 20
    assert recorder.moments[0].packet.is_key
    with made_host[1].loop() as loop:
        loops = [next(loop).to_ndarray(format="rgb24").astype(int) for _ in range(50)]
    start = recorder.told("speaking")[0]["time"]
    seen = [moment for moment in recorder.moments if moment.picture]
    apart = [
        np.abs(moment.picture.to_ndarray(format="rgb24").astype(int) - loops[number % 50]).max()
        for number, moment in enumerate(seen)
    ]
    before = [gap for gap, moment in zip(apart, seen, strict=True) if moment.time < start]
    spoken = [gap for gap, moment in zip(apart, seen, strict=True) if start <= moment.time < start + 1.0]
    assert before and max(before) <= 3
    assert np.mean(spoken) > 10 * max(np.mean(before), 0.5)


def test_interrupting_is_silence_within_200_ms(studio: Studio, session: Session, recorder: Recorder) -> None:
    studio.play(session, footage.speech_like(4.0, 48000), 48000)
    studio.say(session, SpokenText("This is never heard, for it comes too late.", "en"))
    recorder.wait(lambda r: sum(map(loud, r.moments)) > 8)
    asked = time.monotonic()
    session.interrupt()
    recorder.wait(lambda r: r.told("idle") and r.told("interrupted"))
    after = [m for m in recorder.moments if m.due > asked + 0.2]
    recorder.wait(lambda r: r.moments[-1].due > asked + 1.0)
    after = [m for m in recorder.moments if m.due > asked + 0.2]
    assert len(after) > 5 and not any(map(loud, after))
    assert not session.is_busy
    studio.play(session, footage.speech_like(0.5, 16000), 16000)
    heard = len(recorder.told("speaking"))
    recorder.wait(lambda r: len(r.told("speaking")) > heard and len(r.told("idle")) > 1)
    assert "never" not in str(recorder.told("word"))


def test_a_stream_of_chunks_is_said_while_it_arrives(studio: Studio, session: Session, recorder: Recorder) -> None:
    samples = footage.speech_like(1.2, 16000)
    sound = studio.stream(session, 16000)
    for start in range(0, len(samples), 320):
        studio.feed(sound, samples[start : start + 320])
        time.sleep(0.01)
    sound.end()
    recorder.wait(lambda r: r.told("idle"))
    heard = np.concatenate([moment.sound for moment in recorder.moments]).astype(np.float32) / 32767
    correlation = np.correlate(heard[::3], samples, "valid").max() / (samples**2).sum()
    assert correlation > 0.95  # whole, in order, without a hole


def test_a_stream_that_stops_arriving_ends_and_one_that_floods_is_refused(
    studio: Studio, session: Session, recorder: Recorder
) -> None:
    sound = studio.stream(session, 16000)
    studio.feed(sound, footage.speech_like(0.6, 16000))
    recorder.wait(lambda r: r.told("idle"))
    assert sound.ended
    flood = studio.stream(session, 16000)
    with pytest.raises(InputError, match="send it slower"):
        for _ in range(20):
            studio.feed(flood, np.zeros(16000, np.float32))
    session.interrupt()
    with pytest.raises(InputError, match="wait already"):
        for _ in range(30):
            studio.play(session, np.zeros(16000, np.float32), 16000)


def test_a_slow_machine_draws_fewer_frames_and_the_sound_goes_on(
    studio: Studio, session: Session, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = studio._engine
    render = engine.render
    monkeypatch.setattr(engine, "render", lambda frames, drawn: time.sleep(0.07 * len(frames)) or render(frames, drawn))
    samples = footage.speech_like(3.0, 48000)
    studio.play(session, samples, 48000)
    recorder.wait(lambda r: r.told("idle"))
    assert session.stride > 1 and recorder.told("lag")
    heard = np.concatenate([moment.sound for moment in recorder.moments]).astype(np.float32) / 32767
    start = int(np.flatnonzero(np.abs(heard) > 0.01)[0])
    reference = samples[int(np.flatnonzero(np.abs(samples) > 0.01)[0]) :]
    assert np.abs(heard[start : start + len(reference)] - reference[: len(heard) - start]).max() < 0.02


def test_a_mouth_that_does_not_come_goes_to_rest_and_comes_back(
    studio: Studio,
    session: Session,
    recorder: Recorder,
    made_host: tuple[LipSyncPipeline, Host],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    render, free = studio._engine.render, threading.Event()

    def stuck(frames: list[Any], drawn: np.ndarray) -> np.ndarray:
        assert frames[0].time < 0.6 or free.wait(60)
        return render(frames, drawn)

    monkeypatch.setattr(studio._engine, "render", stuck)
    samples = footage.speech_like(4.0, 48000)
    studio.play(session, samples, 48000)
    recorder.wait(lambda r: session.late > 12)
    waited = len(recorder.moments)
    free.set()
    recorder.wait(lambda r: r.told("idle"))
    with made_host[1].loop() as loop:
        rests = [next(loop).to_ndarray(format="rgb24").astype(int) for _ in range(50)]
    shown = [moment for moment in recorder.moments if moment.picture]
    apart = {
        moment.number: np.abs(moment.picture.to_ndarray(format="rgb24").astype(int) - rests[index % 50]).max()
        for index, moment in enumerate(shown)
    }
    start = round(recorder.told("speaking")[0]["time"] * 25)
    before = [value for number, value in apart.items() if start + 4 <= number < start + 12]
    stuck_for = [value for number, value in apart.items() if waited - 4 <= number < waited]
    after = [value for number, value in apart.items() if waited + 8 <= number < start + 95]
    assert max(stuck_for) <= 3 and min(np.median(before), np.median(after)) > 10, apart
    heard = np.concatenate([moment.sound for moment in recorder.moments]).astype(np.float32) / 32767
    assert np.correlate(heard[::3], samples[::3], "valid").max() / (samples[::3] ** 2).sum() > 0.95


def test_between_drawn_mouths_there_are_their_means(studio: Studio, made_host: tuple[LipSyncPipeline, Host]) -> None:
    host, sound = made_host[1], Spoken.of(footage.speech_like(1.0, 16000), 16000)
    mouths = studio._mouths(studio.open(host), sound)
    assert [mouths.draw(0, 3, most) for most in (0, 4)] == [3, 4]
    first, second = (mouths.at(number)[0].astype(float) for number in (0, 3))
    for number in (1, 2):
        picture, in_time = mouths.at(number)
        assert in_time and np.abs(picture - first - (second - first) * number / 3).max() <= 1
    assert [mouths.at(number)[1] for number in (18, 19)] == [True, False]


def test_a_listener_that_comes_later_begins_with_a_key_picture(session: Session, recorder: Recorder) -> None:
    recorder.wait(lambda r: len(r.moments) > 8)
    late = Recorder()
    session.attach(late)
    late.wait(lambda r: any(m.packet and m.packet.is_key for m in r.moments[:6]))
    session.detach(recorder)
    count = len(recorder.moments)
    late.wait(lambda r: len(r.moments) > 10)
    assert len(recorder.moments) <= count + 1
    session.detach(late)
    quiet = len(late.moments)
    time.sleep(0.3)
    assert len(late.moments) <= quiet + 1  # nobody is there: the clock stands still


def test_words_are_shared_out_in_any_script() -> None:
    assert words_of("Hello, big world!") == ["Hello,", "big", "world!"]
    assert words_of("你好，世界。") == ["你", "好，", "世", "界。"]
    assert words_of("我用iPhone。") == ["我", "用", "iPhone。"]
    phonemes = [Phoneme("a", 1, i * 0.1, i * 0.1 + 0.1) for i in range(10)]
    timed = timed_words("one twoo", phonemes, len)
    assert [word.text for word in timed] == ["one", "twoo"]
    assert timed[0].start == 0.0 and timed[1].end == pytest.approx(1.0) and timed[0].end <= timed[1].start + 1e-9


def test_a_streamed_sound_is_the_same_in_pieces() -> None:
    samples = footage.speech_like(1.0, 22050)
    whole, pieces = Spoken.of(samples, 22050), Streamed(22050)
    for start in range(0, len(samples), 777):
        pieces.add(samples[start : start + 777], 0.0)
    assert pieces.seconds() is None and not pieces.can_draw(0.95, 0.2)
    pieces.end()
    assert pieces.seconds() == pytest.approx(1.0, abs=0.01) and pieces.can_draw(0.95, 0.2)
    parts = np.concatenate([pieces.part(first, first + 1920) for first in range(0, PLAYED_RATE, 1920)])
    assert np.abs(parts.astype(int) - whole.part(0, PLAYED_RATE)).max() < 300
    assert not pieces.part(2 * PLAYED_RATE, 2 * PLAYED_RATE + 100).any()
