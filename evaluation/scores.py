"""All metrics of one clip: every version of it against the real video."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from data.preprocess import FPS
from evaluation.features import FaceDescriptor, ImageFeatures
from evaluation.reading import Reading
from evaluation.sync import SyncScorer
from faces.alignment import LIPS_INNER, LIPS_OUTER
from faces.window import GENERATED
from models.syncnet import SyncResult
from utils import metrics

REAL = "real"  # the version that all others are compared with
EYE_DISTANCE = 72.0  # px between the eye centres of the canonical face, hence of every aligned one
TOLERANCE = 1  # frames by which a clip may be off and still be in sync
FEATURE_FRAMES = 8  # frames of a clip that the ImageNet network looks at, evenly spread
MOUTH = (slice(GENERATED[1], GENERATED[3]), slice(GENERATED[0], GENERATED[2]))  # rows and columns that may be new
_LIPS = LIPS_OUTER + LIPS_INNER

Row = dict[str, float]


@dataclass(frozen=True)
class Networks:
    """What looks and listens, loaded once a process. `syncs` has "judge", and "public" where its weights are given."""

    features: ImageFeatures
    descriptor: FaceDescriptor
    syncs: dict[str, SyncScorer]


class Sound:
    """A sound and what the sync networks hear in it, computed once.

    Args:
        samples: mono 16 kHz, starting with the first frame of the video.
        networks: that listen.
    """

    def __init__(self, samples: np.ndarray, networks: Networks):
        self._samples = samples
        self._networks = networks

    @cached_property
    def heard(self) -> dict[str, torch.Tensor]:
        """Embeddings (S, D) by sync network."""
        return {name: net.hear(self._samples) for name, net in self._networks.syncs.items()}


class Version:
    """One version of a clip and what the networks see in it, computed once.

    Args:
        reading: of the version.
        networks: that look.
    """

    def __init__(self, reading: Reading, networks: Networks):
        self.reading = reading
        self._networks = networks

    @cached_property
    def early(self) -> np.ndarray:
        """Descriptor (128,) of the face in the first half."""
        return self._networks.descriptor(self.reading.early)

    @cached_property
    def late(self) -> np.ndarray:
        """Descriptor (128,) of the face in the second half."""
        return self._networks.descriptor(self.reading.late)

    @cached_property
    def seen(self) -> dict[str, torch.Tensor]:
        """Embeddings (W, D) by sync network."""
        return {name: net.see(self.reading) for name, net in self._networks.syncs.items()}

    def sync(self, sound: Sound, frames: int) -> dict[str, SyncResult]:
        """Scores of the first `frames` frames against a sound, by sync network."""
        results = {}
        for name, net in self._networks.syncs.items():
            seen = self.seen[name][: frames - len(self.reading) or None]
            results[name] = net.compare(seen, sound.heard[name], self.reading.first)
        return results


@dataclass(frozen=True)
class Compared:
    """Scores of some versions of a clip.

    Attributes:
        frames: that were scored, the same number of every version.
        rows: version -> metric -> value.
        features: version -> (FEATURE_FRAMES, 320), for the Frechet distance over all clips.
    """

    frames: int
    rows: dict[str, Row]
    features: dict[str, np.ndarray]


def compare(
    versions: dict[str, tuple[Version, Sound]], networks: Networks, same_words: bool
) -> Compared:
    """Score versions of a clip over the frames that all of them have.

    Args:
        versions: name -> version and the sound it is scored against; REAL must be among them.
        networks: that look and listen.
        same_words: all versions should show the real video's mouth, so they are also compared with it pixel by pixel,
            and their frames should move as its do; otherwise each is only compared with its own motion.
    """
    frames = min(len(version.reading) for version, _ in versions.values())
    real = versions[REAL][0]
    truth = real.reading.cut(frames)
    distinct = {version for version, _ in versions.values()}
    looks = {version: networks.features(_spread(version.reading.cut(frames).windows)) for version in distinct}
    truth_flow = metrics.optical_flow(truth.windows)
    rows, features = {}, {}
    for name, (version, sound) in versions.items():
        reading = version.reading.cut(frames)
        maps, features[name] = looks[version]
        flow = truth_flow if same_words else metrics.optical_flow(reading.windows)
        row = _temporal(reading, flow) | _synced(version.sync(sound, frames))
        row["identity"] = metrics.cosine(version.late, real.early)
        row["lost_frames"] = reading.lost
        if same_words and version is not real:
            row |= _fidelity(reading, truth)
            row["perceptual"] = metrics.perceptual_distance(maps, looks[real][0])
        rows[name] = row
    return Compared(frames, rows, features)


def _fidelity(reading: Reading, truth: Reading) -> Row:
    lips, true_lips = reading.points[:, _LIPS], truth.points[:, _LIPS]
    return {
        "lmd": metrics.landmark_distance(lips, true_lips, EYE_DISTANCE),
        "ssim": metrics.ssim(reading.windows, truth.windows),
        "psnr": metrics.psnr(reading.windows, truth.windows),
    }


def _temporal(reading: Reading, flow: np.ndarray) -> Row:
    return {
        "jerk": metrics.jerk(reading.points[:, _LIPS], FPS, EYE_DISTANCE),
        "warp_error": metrics.warp_error(reading.windows, flow, MOUTH),
    }


def _synced(results: dict[str, SyncResult]) -> Row:
    row: Row = {}
    for name, result in results.items():
        prefix = "" if name == "judge" else f"{name}_"
        row[f"{prefix}confidence"] = result.confidence
        row[f"{prefix}distance"] = result.distance
        row[f"{prefix}offset"] = result.offset
        row[f"{prefix}in_sync"] = metrics.share_within([result.offset], TOLERANCE)
    return row


def _spread(images: np.ndarray) -> np.ndarray:
    """FEATURE_FRAMES of the images, evenly spread."""
    return images[((np.arange(FEATURE_FRAMES) + 0.5) * len(images) / FEATURE_FRAMES).astype(int)]
