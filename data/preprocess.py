"""Turns raw videos of people speaking into training clips: aligned mouth windows, sound, mouth shapes, speech features.

    python data/preprocess.py --raw_data_dir raw_dataset --output_dir processed_dataset --config model_config.yaml \
        --split all --num_workers 2

Reads ``raw_data_dir/{train,val,test}/videos/*`` (``audios/`` and ``texts/`` with the same stem are used where they
exist, and ``manifest.tsv`` for people, languages and sources). Writes ``output_dir/{split}/{clip}/`` with

    crops.mp4    160x160 mouth windows, 25 fps, H.264 4:4:4
    audio.wav    mono 16 kHz, starting with the first frame
    tracks.npz   points (T,468,2), shape (T,K), base (T,P,2), pose (T,3) degrees, matrix (T,2,3), valid (T,)
    speech.npy   (V,T50,5,384) float16, V copies of the speech features: clean, then altered
    activity.npy (T50,) float16, chance that somebody speaks; the copies have the same timing
    meta.json    who, which language, which text, from where, how many frames; by how many of them the sound is
                 off, once there is a trained sync network in ``<weights_dir>/<size>/syncnet``

and scenes with pauses, music and noise made of the clips (see data/quiet_scenes.py) into ``train_scenes/`` and
``val_scenes/``, and ``output_dir/report.json``: clips in, kept and dropped by reason, minutes, people. Originals are
only read; what is done is skipped; a clip's folder appears under its name when it is complete, so the same command
goes on after a kill.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees data/ only

from audio_processor import load_audio  # noqa: E402
from data.pool import run_pool  # noqa: E402
from data.raw_clips import RawClip, by_turns, find_raw_clips  # noqa: E402
from data.speech_variants import speech_variants  # noqa: E402
from faces.alignment import (  # noqa: E402
    POINT_SMOOTHING_S,
    align_matrix,
    eye_distance,
    head_pose,
    smooth_in_time,
    smooth_matrices,
)
from faces.choice import FaceChoice  # noqa: E402
from faces.detector import FaceDetector, FaceMesh  # noqa: E402
from faces.footage import frames_at_25  # noqa: E402
from faces.mouth_shape import MouthShape  # noqa: E402
from faces.tracker import FaceFrame, FaceTracker, TrackerSettings  # noqa: E402
from faces.window import MOUTH_WINDOW, WINDOW_SIZE  # noqa: E402
from utils.config import Config, PreprocessConfig, load_config  # noqa: E402
from utils.helpers import InputError, atomic_path  # noqa: E402
from video_processor import VideoReader  # noqa: E402

log = logging.getLogger("preprocess")
SPLITS = ("train", "val", "test")
FPS = 25
SAMPLE_RATE = 16000
SILENT_RMS = 1e-3  # -60 dBFS
PERSON_FRAMES = 400  # frames per person that are enough for a steady median and for the fit of the mouth shapes


@dataclass
class FaceTrack:
    """One face over consecutive 25 fps frames: number of the first one, images (H, W, 3), meshes (468, 3) in px."""

    first: int
    images: list[np.ndarray]
    points: list[np.ndarray]


@dataclass(frozen=True)
class AlignedTrack:
    """A track on the canonical face: images, matrices (T, 2, 3), points (T, 468, 2) window px, pose (T, 3) degrees."""

    images: list[np.ndarray]
    matrices: np.ndarray
    points: np.ndarray
    pose: np.ndarray

    def windows(self) -> Iterator[np.ndarray]:
        """The mouth windows, uint8 (160, 160, 3), one by one."""
        return map(MOUTH_WINDOW.warp, self.images, self.matrices)


def align_track(track: FaceTrack, frames: int) -> AlignedTrack:
    """Align the first ``frames`` frames of a track, smoothed over time."""
    times = np.arange(frames) / FPS
    meshes = np.stack(track.points[:frames])
    matrices = smooth_matrices(np.stack([align_matrix(p) for p in meshes]), times)
    points = np.stack([MOUTH_WINDOW.to_window(p, m) for p, m in zip(meshes, matrices, strict=True)])
    pose = smooth_in_time(np.array([head_pose(p) for p in meshes], np.float32), times)
    return AlignedTrack(track.images[:frames], matrices, smooth_in_time(points, times, POINT_SMOOTHING_S), pose)


MIN_EYE_DISTANCE_PX = 18.0  # below this the mouth is a dozen pixels wide: nothing to learn from


@functools.cache
def _face_networks(models_dir: Path, min_score: float) -> tuple[FaceDetector, FaceMesh]:
    """Compiled once a worker process: compiling takes longer than a clip."""
    return FaceDetector(models_dir, min_score), FaceMesh(models_dir)


def face_tracker(config: Config, choice: FaceChoice | None = None) -> FaceTracker:
    """A tracker of one face of each shot, the largest unless another one is chosen."""
    faces = config.faces
    settings = TrackerSettings(min_presence=faces.min_presence, cut_threshold=faces.cut_threshold)
    networks = _face_networks(faces.models_dir, faces.min_detection_score)
    return FaceTracker(*networks, choice or FaceChoice("largest"), settings)


def is_usable(points: np.ndarray, config: Config) -> bool:
    """Whether a mesh (468, 3) px is turned to the camera enough and large enough to learn from."""
    yaw, pitch, _ = head_pose(points)
    turned = abs(yaw) > config.faces.max_yaw_deg or abs(pitch) > config.faces.max_pitch_deg
    return not turned and eye_distance(points) >= MIN_EYE_DISTANCE_PX


def face_tracks(frames: Iterable[FaceFrame], config: Config) -> Iterator[FaceTrack]:
    """Split followed frames into runs with a usable face and no cut inside, at most ``max_clip_s`` long."""
    track, shot, longest = None, -1, int(config.preprocess.max_clip_s * FPS)
    for number, frame in enumerate(frames):
        usable = frame.points is not None and is_usable(frame.points, config)
        if track is not None and (frame.shot != shot or not usable or len(track.images) >= longest):
            yield track
            track = None
        shot = frame.shot
        if usable:
            track = track or FaceTrack(number, [], [])
            track.images.append(frame.frame.image)
            track.points.append(frame.points)
    if track is not None:
        yield track


def process_video(raw: RawClip, output: Path, config: Config) -> dict[str, int]:
    """First pass over one raw video: its face tracks as clip folders. Returns what happened, as reason -> count."""
    done = output / raw.split / ".done" / f"{raw.video.name}.json"
    if done.is_file():
        return json.loads(done.read_text())
    try:
        result = _process_video(raw, output, config)
    except InputError as error:
        log.info("%s: %s", raw.video.name, error)
        result = {"unreadable": 1}
    done.parent.mkdir(parents=True, exist_ok=True)
    done.write_text(json.dumps(result))
    return result


def _process_video(raw: RawClip, output: Path, config: Config) -> dict[str, int]:
    cv2.setNumThreads(1)
    samples = load_audio(raw.audio, SAMPLE_RATE)
    if float(np.sqrt(np.mean(samples**2))) < SILENT_RMS:
        return {"silent": 1}
    limits, kept, short = config.preprocess, 0, 0
    with VideoReader(raw.video) as reader:
        for track in face_tracks(face_tracker(config).follow(frames_at_25(reader)), config):
            if len(track.images) < limits.min_clip_s * FPS:
                short += 1
                continue
            name = raw.video.stem if kept == 0 else f"{raw.video.stem}_{kept}"
            kept += bool(_write_clip(raw, track, samples, output / raw.split / name, config))
    return {"kept": kept} if kept else {"too short": 1} if short else {"no usable face": 1}


def _write_clip(raw: RawClip, track: FaceTrack, samples: np.ndarray, folder: Path, config: Config) -> bool:
    start = round(track.first / FPS * SAMPLE_RATE)
    sound = samples[start : start + round(len(track.images) / FPS * SAMPLE_RATE)]
    frames = min(len(track.images), int(len(sound) / SAMPLE_RATE * FPS))
    if frames < config.preprocess.min_clip_s * FPS:
        return False
    scratch = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    aligned = align_track(track, frames)
    write_crops(scratch / "crops.mp4", aligned.windows(), config.preprocess.crf)
    soundfile.write(scratch / "audio.wav", sound[: round(frames / FPS * SAMPLE_RATE)], SAMPLE_RATE, subtype="PCM_16")
    np.savez(
        scratch / "tracks.npz",
        points=aligned.points.astype(np.float16),
        pose=aligned.pose,
        matrix=aligned.matrices,
        valid=np.ones(frames, bool),
    )
    meta = {"clip_id": folder.name, "person": raw.person, "language": raw.language, "text": raw.text}
    meta |= {"source": raw.source, "frames": frames, "first_frame": track.first, "sync_offset": None}
    (scratch / "meta.json").write_text(json.dumps(meta, ensure_ascii=False, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    scratch.rename(folder)
    return True


def write_crops(path: Path, windows: Iterable[np.ndarray], crf: int) -> None:
    """Write mouth windows (160, 160, 3) as H.264 with full colour resolution, 25 fps."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": str(crf), "preset": "veryfast"})
        stream.width = stream.height = WINDOW_SIZE
        stream.pix_fmt = "yuv444p"
        stream.thread_count = 1
        for image in windows:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def clip_folders(output: Path, split: str) -> list[Path]:
    """Finished clip folders of a split."""
    return sorted(p.parent for p in (output / split).glob("[!.]*/meta.json"))


def _seen_of_people(folders: list[Path]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Meshes (T, 468, 2) and poses (T, 3) of each person, at most PERSON_FRAMES or so spread over the clips."""
    by_person = defaultdict(list)
    for folder in folders:
        by_person[json.loads((folder / "meta.json").read_text())["person"]].append(folder)
    return {person: _seen(clips) for person, clips in by_person.items()}


def _seen(clips: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    each = max(8, -(-PERSON_FRAMES // len(clips)))
    parts = []
    for clip in clips[:: max(1, len(clips) * each // PERSON_FRAMES)]:
        tracks = np.load(clip / "tracks.npz")
        some = slice(None, None, max(1, len(tracks["points"]) // each))
        parts.append([tracks[name][some].astype(np.float32) for name in ("points", "pose")])
    points, pose = (np.concatenate(x) for x in zip(*parts, strict=True))
    return points, pose


def fit_mouth_shape(output: Path, folder: Path, coefficients: int) -> MouthShape:
    """The mouth-shape basis: the one in ``folder``, or a new one learnt from the train split and saved there."""
    if (folder / "config.json").is_file():
        return MouthShape.load(folder)
    people = [seen for seen in _seen_of_people(clip_folders(output, "train")).values() if len(seen[0]) >= FPS]
    if not people:
        raise InputError(
            f"No mouth shapes in {folder} and no training clips to learn them from; use --split all first."
        )
    (shape := MouthShape.fit(people, coefficients)).save(folder)
    return shape


def write_shapes(output: Path, split: str, shape: MouthShape) -> None:
    """Second pass: add ``shape`` and ``base`` to the tracks of every clip that lacks them, relative to the person."""
    folders = clip_folders(output, split)
    neutral = {person: shape.neutral(*seen) for person, seen in _seen_of_people(folders).items()}
    for folder in tqdm(folders, desc=f"{split}: mouth shapes", unit="clip"):
        tracks = dict(np.load(folder / "tracks.npz"))
        if "shape" in tracks:
            continue
        base = shape.base(neutral[json.loads((folder / "meta.json").read_text())["person"]], tracks["pose"])
        found = shape.encode(tracks["points"].astype(np.float32), base)
        tracks |= {"shape": found, "base": base.astype(np.float16)}
        scratch = folder / ".tracks.part.npz"
        np.savez(scratch, **tracks)
        scratch.replace(folder / "tracks.npz")


@functools.cache
def _speech_encoder(folder: Path):
    """One encoder a worker process. Imported here: the face workers need no torch."""
    import torch

    from models.audio_encoder import SpeechEncoder

    torch.set_num_threads(1)
    return SpeechEncoder.from_pretrained(folder)


def write_speech(folder: Path, encoder_dir: Path, variants: int) -> None:
    """Third pass: speech features of one clip, clean and altered, as float16 (V, T50, 5, 384)."""
    target = folder / "speech.npy"
    if target.is_file():
        return
    encoder = _speech_encoder(encoder_dir)
    samples, rate = soundfile.read(folder / "audio.wav", dtype="float32")
    rng = np.random.default_rng(hash_name(folder.name))
    features = [encoder.features(copy) for copy in speech_variants(samples, rate, variants, rng)]
    scratch = folder / ".speech.part.npy"
    np.save(scratch, np.stack(features).astype(np.float16))
    scratch.replace(target)


@functools.cache
def _voice_activity(folder: Path):
    """One voice activity network a worker process."""
    import torch

    from models.voice_activity import VoiceActivity

    torch.set_num_threads(1)
    return VoiceActivity.from_pretrained(folder)


def write_activity(folder: Path, network: Path) -> None:
    """Also in the third pass: the chance that somebody speaks, as float16 (T50,)."""
    target = folder / "activity.npy"
    if target.is_file():
        return
    samples, _ = soundfile.read(folder / "audio.wav", dtype="float32")
    scratch = folder / ".activity.part.npy"
    np.save(scratch, _voice_activity(network).track(samples).astype(np.float16))
    scratch.replace(target)


def make_scenes(output: Path, split: str, config: Config) -> None:
    """Last pass: training scenes in which nobody speaks for a while; a sixth as many for validation."""
    from data.quiet_scenes import SceneMaker, write_scenes

    weights, minutes = config.inference.weights_dir, config.preprocess.scene_minutes
    write_scenes(
        SceneMaker(output, split),
        output / f"{split}_scenes",
        minutes if split == "train" else minutes / 6,
        _speech_encoder(weights / "whisper_tiny_en_encoder").features,
        _voice_activity(weights / "voice_activity").track,
    )


@functools.cache
def _sync_network(folder: Path):
    """One sync network a worker process."""
    import torch

    from models.checkpoint import load_pretrained
    from models.syncnet import SyncNetV2

    torch.set_num_threads(1)
    return load_pretrained(SyncNetV2, folder).eval()


def check_sync(folder: Path, network: Path, limits: PreprocessConfig, again: bool = False) -> None:
    """By how many frames a clip's sound is off, into ``meta.json``; 0 where the network is not sure.

    ``again``: also where an earlier network has said it.
    """
    import torch

    from data.dataset import decode_crops
    from models.syncnet import WINDOW, offset_search

    meta = json.loads((folder / "meta.json").read_text())
    if (meta["sync_offset"] is not None and not again) or meta["frames"] < WINDOW + 1:
        return
    net = _sync_network(network)
    crops = torch.from_numpy(np.ascontiguousarray(decode_crops(folder / "crops.mp4"))).permute(0, 3, 1, 2)
    speech = torch.from_numpy(np.load(folder / "speech.npy")[0].astype(np.float32))
    with torch.inference_mode():
        visual, audio = net.embed_video(crops.float() / 127.5 - 1), net.embed_audio(speech)
    found = offset_search(visual, audio, limits.max_sync_offset)
    meta["sync_offset"] = found.offset if found.confidence >= limits.min_sync_confidence else 0
    with atomic_path(folder / "meta.json") as scratch:
        scratch.write_text(json.dumps(meta, ensure_ascii=False, indent=1))


def hash_name(name: str) -> int:
    """A number from a name that is the same in every process (the built-in hash is not)."""
    return int.from_bytes(name.encode()[-7:], "big")


def write_report(output: Path, counts: dict[str, Counter]) -> dict:
    """Count what is in ``output``, write it to report.json and return it."""
    report = {}
    for split, reasons in counts.items():
        metas = [json.loads((f / "meta.json").read_text()) for f in clip_folders(output, split)]
        dropped = {reason: n for reason, n in sorted(reasons.items()) if reason not in ("kept", "videos_kept")}
        report[split] = {
            "videos_in": reasons["videos_kept"] + sum(dropped.values()),
            "videos_dropped": dropped,
            "clips_kept": len(metas),
            "minutes_kept": round(sum(m["frames"] for m in metas) / FPS / 60, 1),
            "people": len({m["person"] for m in metas}),
        }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def preprocess(
    raw: Path, output: Path, config: Config, splits: tuple[str, ...], workers: int, sync_network: Path | None = None
) -> dict:
    """Run all passes over the given splits; see the module's text. Returns the report.

    With `sync_network` every clip's offset is measured again by that network.
    """
    clips = [clip for split in splits for clip in by_turns(find_raw_clips(raw, split))]
    counts = {split: Counter() for split in splits}
    for clip, result in run_pool([(clip, output, config) for clip in clips], process_video, workers, "faces"):
        counts[clip.split].update(result)
        counts[clip.split]["videos_kept"] += "kept" in result
    shape = fit_mouth_shape(output, config.faces.mouth_shape_dir, config.models.lite.speech.shape_coefficients)
    for split in splits:
        write_shapes(output, split, shape)
    encoder = config.inference.weights_dir / "whisper_tiny_en_encoder"
    folders = [folder for split in splits for folder in clip_folders(output, split)]
    run_pool([(f, encoder, config.preprocess.speech_variants) for f in folders], write_speech, workers, "speech")
    run_pool([(f, config.inference.weights_dir / "voice_activity") for f in folders], write_activity, workers, "voice")
    network = sync_network or config.inference.weights_dir / config.size / "syncnet"
    if sync_network or network.is_dir():
        again = sync_network is not None
        run_pool([(folder, network, config.preprocess, again) for folder in folders], check_sync, workers, "sync")
    for split in ("train", "val"):
        if split in splits and config.preprocess.scene_minutes > 0:
            make_scenes(output, split, config)
    return write_report(output, counts)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw_data_dir", type=Path, required=True, help="folder with train/, val/, test/")
    parser.add_argument("--output_dir", type=Path, required=True, help="where the processed clips go")
    parser.add_argument(
        "--config", type=Path, default=Path("model_config.yaml"), help="settings (default: %(default)s)"
    )
    parser.add_argument("--split", choices=("all", *SPLITS), default="all", help="which part (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument(
        "--sync_network", type=Path, metavar="DIR", help="measure again, with this network, how far each sound is off"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse_arguments(arguments)
    splits = SPLITS if args.split == "all" else (args.split,)
    try:
        report = preprocess(
            args.raw_data_dir, args.output_dir, load_config(args.config), splits, args.num_workers, args.sync_network
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
