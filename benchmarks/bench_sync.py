"""Does the mouth follow the new speech? Offsets found by the SyncNet judge, which never supervised the generator.

    python benchmarks/bench_sync.py --clips ../shared/talking_faces/test/videos --output outputs/sync

Every clip is given the speech of another clip by the whole pipeline. The judge then searches the shift at which picture
and sound fit best, for three pairs: the real clip with its own sound (is the judge worth asking?), the untouched clip
with the new speech (chance), and the result with the new speech. The figure is the share of clips whose offset is
within one frame; ``--json`` keeps the offset of every clip.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees benchmarks/ only

from audio_processor import load_audio  # noqa: E402
from data.preprocess import VIDEO_SUFFIXES, align_track, face_tracker, face_tracks, frames_at_25  # noqa: E402
from models.audio_encoder import SpeechEncoder  # noqa: E402
from models.syncnet import WINDOW, SyncNetV2, SyncResult, offset_search  # noqa: E402
from pipeline import LipSyncPipeline, Options  # noqa: E402
from utils.config import Config, load_config  # noqa: E402
from utils.helpers import InputError, resolve_device  # noqa: E402
from video_processor import VideoReader  # noqa: E402

SAMPLE_RATE = 16000
MAX_SHIFT = 10  # frames; most test clips have 30 frames, hence 15 windows
TOLERANCE = 1  # frames


@dataclass(frozen=True)
class Judged:
    """Offsets (frames), confidences and distances of one clip."""

    clip: str
    speech: str
    real: SyncResult
    untouched: SyncResult
    result: SyncResult


class Judge:
    """The judge network with the speech encoder, over whole video files."""

    def __init__(self, config: Config, weights: Path):
        self._config = config
        self._encoder = SpeechEncoder.from_pretrained(config.inference.weights_dir / "whisper_tiny_en_encoder")
        self._net = SyncNetV2.from_pretrained(weights).eval()

    @torch.inference_mode()
    def video(self, path: Path) -> tuple[torch.Tensor, int]:
        """Embeddings (T - 15, D) of the longest face track, and the number of its first frame at 25 fps."""
        with VideoReader(path) as reader:
            tracks = list(face_tracks(face_tracker(self._config).follow(frames_at_25(reader)), self._config))
        track = max(tracks, key=lambda t: len(t.images), default=None)
        if track is None or len(track.images) < WINDOW:
            raise InputError(f"{path.name}: no face for {WINDOW} frames on end.")
        windows = np.stack(list(align_track(track, len(track.images)).windows()))
        frames = torch.from_numpy(windows).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._net.embed_video(frames), track.first

    @torch.inference_mode()
    def sound(self, path: Path) -> torch.Tensor:
        """Embeddings (S, D) of a sound, one for each frame at 25 fps."""
        features = torch.from_numpy(self._encoder.features(load_audio(path, SAMPLE_RATE))).float()
        return self._net.embed_audio(features)

    def compare(self, picture: tuple[torch.Tensor, int], sound: torch.Tensor) -> SyncResult:
        """Offset of a picture against a sound that starts with the video."""
        embeddings, first = picture
        return offset_search(embeddings, sound[first:], MAX_SHIFT)


def choose_speech(clips: list[Path], seed: int) -> list[Path]:
    """For every clip another one to take the speech from: a random rotation, so that each sound is used once."""
    order = np.random.default_rng(seed).permutation(len(clips))
    partner = dict(zip(order, np.roll(order, 1), strict=True))
    return [clips[partner[i]] for i in range(len(clips))]


def judge_clip(clip: Path, speech: Path, pipeline: LipSyncPipeline, judge: Judge, output: Path) -> Judged:
    """Generate one result and compare the three pairs."""
    target = output / f"{clip.stem}__{speech.stem}.mp4"
    if not target.is_file():
        pipeline.run(clip, speech, target, Options(fit="bounce", rest="cut"))
    real, new = judge.video(clip), judge.sound(speech)
    compared = judge.compare(real, judge.sound(clip)), judge.compare(real, new)
    return Judged(clip.name, speech.name, *compared, judge.compare(judge.video(target), new))


def rate(results: list[SyncResult]) -> float:
    """Share of results within the tolerance."""
    return float(np.mean([abs(r.offset) <= TOLERANCE for r in results]))


def print_table(judged: list[Judged]) -> dict[str, float]:
    """Print and return the share of clips within one frame for the three pairs."""
    rates = {}
    print(f"\n{len(judged)} clips, offset searched within {MAX_SHIFT} frames, share within {TOLERANCE} frame of 0")
    for name in ("real", "untouched", "result"):
        results = [getattr(j, name) for j in judged]
        rates[name] = rate(results)
        confidence, distance = np.mean([r.confidence for r in results]), np.mean([r.distance for r in results])
        print(f"  {name:10s} {100 * rates[name]:5.1f} %   confidence {confidence:.3f}   distance {distance:.3f}")
    return rates


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="folder of videos of people speaking")
    parser.add_argument("--output", type=Path, required=True, help="where the results go; existing ones are kept")
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"))
    parser.add_argument(
        "--judge", type=Path, default=Path("pretrained/lite/syncnet_judge"), help="weights of the judge"
    )
    parser.add_argument("--limit", type=int, help="only this many clips, spread over the folder")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of speech")
    parser.add_argument("--json", type=Path, help="write every clip's offsets here")
    args = parser.parse_args(arguments)
    config = load_config(args.config)
    clips = sorted(p for p in args.clips.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
    clips = clips[:: max(1, len(clips) // args.limit)][: args.limit] if args.limit else clips
    args.output.mkdir(parents=True, exist_ok=True)
    pipeline, judge = LipSyncPipeline.load(config, resolve_device("auto")), Judge(config, args.judge)
    judged, skipped = [], []
    for clip, speech in tqdm(list(zip(clips, choose_speech(clips, args.seed), strict=True)), unit="clip"):
        try:
            judged.append(judge_clip(clip, speech, pipeline, judge, args.output))
        except InputError as error:
            skipped.append(str(error))
    rates = print_table(judged)
    for sentence in skipped:
        print(f"  left out: {sentence}")
    if args.json:
        args.json.write_text(json.dumps({"rates": rates, "clips": [asdict(j) for j in judged]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
