"""How well a mouth follows a sound: by the judge, and by the public SyncNet where its weights are at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from audio_processor import SAMPLE_RATE
from data.preprocess import FPS
from engines.published import fill, read_tensors
from evaluation.features import check_packages
from evaluation.reading import Reading
from models.audio_encoder import SpeechEncoder
from models.checkpoint import load_pretrained
from models.syncnet import PublicSyncNet, SyncNetV2, SyncResult, offset_search, public_offset_search
from utils.helpers import InputError

JUDGE_SHIFT = 10  # frames either way; a clip of a second has no more
_INT16 = 32768  # a full-scale sample, as files are decoded


class SyncScorer(Protocol):
    """A network that scores pictures against sounds; what it sees and hears is computed once and compared often."""

    def see(self, reading: Reading) -> torch.Tensor:
        """Embeddings of a reading's windows (W, D), one per frame from its first on."""
        ...

    def hear(self, samples: np.ndarray) -> torch.Tensor:
        """Embeddings (S, D) of a mono 16 kHz sound, one per frame at 25 fps."""
        ...

    def compare(self, seen: torch.Tensor, heard: torch.Tensor, first: int) -> SyncResult:
        """Score a picture that starts at frame `first` of the sound's video; no sound beyond the picture is used."""
        ...


class Judge:
    """`syncnet_judge`, which never supervised the generator.

    Args:
        weights: folder of the judge.
        encoder: folder of the speech encoder.
    """

    def __init__(self, weights: Path, encoder: Path):
        self._net = load_pretrained(SyncNetV2, weights)
        self._encoder = SpeechEncoder.from_pretrained(encoder)

    @torch.inference_mode()
    def see(self, reading: Reading) -> torch.Tensor:
        frames = torch.from_numpy(reading.windows).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._net.embed_video(frames)

    @torch.inference_mode()
    def hear(self, samples: np.ndarray) -> torch.Tensor:
        return self._net.embed_audio(torch.from_numpy(self._encoder.features(samples)).float())

    def compare(self, seen: torch.Tensor, heard: torch.Tensor, first: int) -> SyncResult:
        return offset_search(seen, _within(heard, first, len(seen)), JUDGE_SHIFT)


class PublicJudge:
    """The public SyncNet with its own MFCC, crop and search: prints the field's LSE-C and LSE-D.

    Only the face detector differs from the public tool: the box is that of the face mesh.

    Args:
        weights: ``syncnet_v2.model``.

    Raises:
        InputError: the file cannot be read or holds another network.
    """

    def __init__(self, weights: Path):
        check_packages(("python_speech_features",))
        if not weights.is_file():
            raise InputError(f"There are no weights of the public SyncNet at {weights}; give syncnet_v2.model.")
        self._net = fill(PublicSyncNet, read_tensors(weights), weights, wanted="syncnet_v2.model")

    @torch.inference_mode()
    def see(self, reading: Reading) -> torch.Tensor:
        return self._net.embed_video(torch.from_numpy(reading.public).permute(0, 3, 1, 2))

    @torch.inference_mode()
    def hear(self, samples: np.ndarray) -> torch.Tensor:
        return self._net.embed_audio(torch.from_numpy(mfcc(samples)))

    def compare(self, seen: torch.Tensor, heard: torch.Tensor, first: int) -> SyncResult:
        return public_offset_search(seen, _within(heard, first, len(seen)))


def mfcc(samples: np.ndarray) -> np.ndarray:
    """13 cepstral coefficients at 100 Hz, float32 (13, T), of mono 16 kHz float samples in [-1, 1].

    The defaults of python_speech_features on samples scaled to 16 bits, as the public SyncNet was trained.
    """
    import python_speech_features

    scaled = np.clip(np.round(samples * _INT16), -_INT16, _INT16 - 1).astype(np.int16)
    return np.ascontiguousarray(python_speech_features.mfcc(scaled, SAMPLE_RATE).T.astype(np.float32))


def _within(heard: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """The sound's embeddings that lie beside `count` embeddings of a picture which starts at frame `first`.

    Raises:
        InputError: there are none.
    """
    beside = heard[first : first + count]
    if not len(beside):
        raise InputError(f"The sound ends before the face is seen, at {first / FPS:.1f} s; leave the clip out.")
    return beside
