"""Training of the sync networks: find the right sound among shifted and foreign ones."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import (
    Clip,
    ClipCache,
    StepBatches,
    clip_mel,
    clip_probabilities,
    clip_speech,
    decode_crops,
    load_clips,
)
from models.syncnet import (
    CROP_LEFT,
    CROP_SIDE,
    CROP_TOP,
    INPUT_SIDE,
    MEL_STEPS,
    SPEECH_STEPS,
    WINDOW,
    SyncNetV2,
    offset_search,
)
from training.common import Batch, Losses, Stage, decay_groups
from utils.config import Config
from utils.data_augmentation import brightness_jitter, disturb_features, standardise, warp_frames
from utils.training_config import SyncNetTraining

VALIDATION_CLIPS = 60
FAR_SHIFT = 5  # frames; a sound shifted by so much must be told from the true one
SEARCH_SHIFT = 7  # frames either way in the offset search
GREY_MEAN, GREY_SPREAD = 128.0, 40.0  # of the windows on their way to the network, as uint8
LARGEST_SCALE = 50.0  # of the cosines in the contrastive loss


class Heads(nn.Module):
    """Needed for training only: reads the mouth shape from an embedding of either tower; the cosines' scale.

    Both towers share the reading head, which pulls their embeddings into one space before the contrastive loss has
    found anything to hold on to.
    """

    def __init__(self, embedding: int, coefficients: int) -> None:
        super().__init__()
        self.shape = nn.Linear(embedding, WINDOW * coefficients)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))


class SyncNetStage(Stage):
    """See the module. Validation on unseen people: true or shifted sound, and finding the offset of a clip."""

    name = "syncnet"

    @property
    def sampler(self) -> type[ShiftSampler]:
        """What draws its samples."""
        return ShiftSampler

    def build(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device
        torch.manual_seed(self.settings.seed)
        sizes = getattr(config.model, self.name)
        self.model = SyncNetV2(**sizes.model_dump()).to(device, memory_format=torch.channels_last)
        self.heads = Heads(sizes.embedding, config.model.speech.shape_coefficients).to(device)
        self._validation: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "heads": self.heads}

    def parameter_groups(self) -> list[dict[str, Any]]:
        return decay_groups(self.model) + decay_groups(self.heads)

    def train_batches(self, rank: int = 0) -> Dataset:
        sampler = self.sampler(self.config, self.settings, self.model.config.audio_input)
        return StepBatches(sampler.draw, self.settings.batch_size, self.settings.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        visual = self.model.visual_tower(self._seen(batch)).float()
        audio = self.model.audio_tower(batch["audio"].flatten(0, 1).float()).float()
        scale = self.heads.log_scale.clamp(max=math.log(LARGEST_SCALE)).exp()
        cosines = F.normalize(visual, dim=-1) @ F.normalize(audio, dim=-1).T
        starts = batch["starts"]
        over_all, within = contrast(scale * cosines, starts, self.settings.minimum_shift)
        losses = {"all": over_all, "within": within}
        weight = self.settings.shape_weight * max(0.0, 1 - 2 * self.progress)
        if weight > 0:
            truth = batch["shape"].flatten(0, 1).flatten(1)
            seen, heard = self.heads.shape(visual).float(), self.heads.shape(audio).float()
            losses["shape_seen"] = weight * F.smooth_l1_loss(seen, truth)
            losses["shape_heard"] = weight * F.smooth_l1_loss(heard, truth)
        total = torch.stack(list(losses.values())).sum()
        right = (cosines.argmax(1) == torch.arange(len(cosines), device=cosines.device)).float().mean()
        logged = {name: loss.detach() for name, loss in losses.items()}
        return {"loss": total, **logged, "found": right, "scale": scale.detach()}

    def _seen(self, batch: Batch) -> torch.Tensor:
        """What the visual tower takes, of all windows of a batch."""
        grey = batch["grey"].flatten(0, 1).permute(0, 3, 1, 2)
        grey = grey.to(torch.bfloat16 if self.settings.precision == "bf16" else torch.float32)
        return grey.sub_(GREY_MEAN).mul_(1 / GREY_SPREAD)

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        random = np.random.default_rng(0)
        true, shifted, found = [], [], []
        for seen, features in self._validation_clips():
            visual = self._embed(seen.to(self.device).float())
            audio = self.model.embed_audio(features.to(self.device).float())
            count = min(len(visual), len(audio))
            cosines = (visual[:count] @ audio[:count].T).cpu()
            partners = [far_partner(i, count, random) for i in range(count)]
            kept = [i for i in range(count) if partners[i] is not None]
            true += cosines.diagonal()[kept].tolist()
            shifted += [cosines[i, partners[i]].item() for i in kept]
            if count > 2 * SEARCH_SHIFT:
                found.append(abs(offset_search(visual, audio, SEARCH_SHIFT).offset) <= 1)
        pairs = float(np.mean(np.array(true) > np.array(shifted)))
        accuracy, threshold = best_accuracy(np.array(true), np.array(shifted))
        offset = float(np.mean(found)) if found else float("nan")
        return {
            "accuracy": accuracy,
            "threshold": threshold,
            "pairs": pairs,
            "offset": offset,
            "score": pairs,
        }

    def _embed(self, seen: torch.Tensor) -> torch.Tensor:
        """Embeddings (T - 15, D) of what `_stretch` gives."""
        return self.model.embed_video(seen / 127.5 - 1)

    def _stretch(self, clip: Clip, first: int, last: int) -> np.ndarray:
        """What is seen in some frames of a clip: uint8 (T, 3, 160, 160)."""
        crops = decode_crops(clip.directory / "crops.mp4")[first:last]
        return np.ascontiguousarray(np.moveaxis(crops, -1, 1))

    def _validation_clips(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What is seen and heard in clips of the validation people, spread over the people."""
        if self._validation is None:
            data = self.config.data
            clips = [c for c in load_clips(data.processed_dir, "val", WINDOW, data.fps) if len(c.starts) > FAR_SHIFT]
            order = np.random.default_rng(0).permutation(len(clips))
            seen: dict[str, int] = {}
            ranks = []
            for i in order:
                seen[clips[i].person] = seen.get(clips[i].person, 0) + 1
                ranks.append((seen[clips[i].person], i))
            chosen = [clips[i] for _, i in sorted(ranks)[:VALIDATION_CLIPS]]
            self._validation = [self._whole_clip(clip) for clip in chosen]
        return self._validation

    def _whole_clip(self, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
        """The longest stretch of valid frames of a clip with its sound."""
        runs = np.split(clip.starts, np.flatnonzero(np.diff(clip.starts) > 1) + 1)
        first, last = max(((run[0], run[-1] + WINDOW) for run in runs), key=lambda run: run[1] - run[0])
        seen = torch.from_numpy(self._stretch(clip, first, last))
        begin = first + clip.offset
        if self.model.config.audio_input == "speech":
            features = clip_speech(clip)[0]
            part = features[max(0, 2 * begin) : 2 * (last + clip.offset)]
        else:
            part = clip_mel(clip)[:, max(0, 4 * begin) : 4 * (last + clip.offset)]
        return seen, torch.from_numpy(np.array(part))


class SyncNetJudgeStage(SyncNetStage):
    """The network that only scores: another seed and another width, never shown to the generator."""

    name = "syncnet_judge"


class ShiftSampler:
    """Draws a clip and windows at several places of it, some of them close together.

    Args:
        config: the data part says where the clips are.
        settings: the stage's training part.
        audio_input: "speech" or "mel".
    """

    def __init__(self, config: Config, settings: SyncNetTraining, audio_input: str) -> None:
        data = config.data
        clips = load_clips(data.processed_dir, "train", WINDOW, data.fps, data.max_minutes_per_person)
        self._clips = [clip for clip in clips if len(clip.starts) >= 2]
        self._chances = clip_probabilities(self._clips)
        self._settings = settings
        self._audio_input = audio_input
        self._grey = ClipCache(load_grey, data.cache_gb * 1e9)
        self._mel = ClipCache(clip_mel, data.cache_gb * 1e8)

    def draw(self, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """Windows of one clip: audio (N, ...), shape (N, 16, K), starts (N,), and what `_pictures` gives."""
        clip = self._clips[random.choice(len(self._clips), p=self._chances)]
        starts = self._choose_starts(clip, random)
        return {
            "audio": torch.from_numpy(self._audio(clip, starts, random)),
            "starts": torch.from_numpy(starts),
            **self._pictures(clip, starts, random),
        }

    def _pictures(self, clip: Clip, starts: np.ndarray, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """ "grey" uint8 (N, 96, 96, 16) and "shape" (N, 16, K)."""
        grey, shape = self._grey(clip)["grey"], self._grey(clip)["shape"]
        settings = self._settings
        windows = []
        for start in starts:
            window = warp_frames(grey[..., start : start + WINDOW], random, INPUT_SIDE, settings.affine_jitter)
            window = brightness_jitter(window, random, settings.brightness_jitter)
            windows.append(standardise(window, GREY_MEAN, GREY_SPREAD))
        return {
            "grey": torch.from_numpy(np.stack(windows)),
            "shape": torch.from_numpy(np.stack([shape[start : start + WINDOW] for start in starts])),
        }

    def _choose_starts(self, clip: Clip, random: np.random.Generator) -> np.ndarray:
        """First frames of the windows, sorted; some are near others. Short clips repeat some."""
        count, near = self._settings.shifts, self._settings.near_shifts
        allowed = clip.starts
        far = random.choice(allowed, count - near, replace=len(allowed) < count - near)
        hops = random.integers(1, SEARCH_SHIFT + 1, near) * random.choice([-1, 1], near)
        wanted = random.choice(far, near) + hops
        closest = np.abs(allowed[None] - wanted[:, None]).argmin(1)
        return np.sort(np.concatenate([far, allowed[closest]]))

    def _audio(self, clip: Clip, starts: np.ndarray, random: np.random.Generator) -> np.ndarray:
        settings = self._settings
        if self._audio_input == "speech":
            variants = clip_speech(clip)
            track, rate, steps = variants[random.integers(len(variants))], 2, SPEECH_STEPS
        else:
            track, rate, steps = self._mel(clip).T, 4, MEL_STEPS
        places = rate * (starts + clip.offset)
        indices = (places[:, None] + np.arange(steps)).clip(0, len(track) - 1)
        windows = [
            disturb_features(
                track[row].astype(np.float32),
                random,
                settings.audio_noise,
                settings.feature_drop,
                settings.time_mask,
            )
            for row in indices
        ]
        stacked = np.stack(windows)
        return stacked.astype(np.float16) if self._audio_input == "speech" else stacked.transpose(0, 2, 1).copy()


def load_grey(clip: Clip) -> dict[str, np.ndarray]:
    """What the sync networks see of a clip, grey uint8 (128, 128, T), and its mouth shapes (T, K)."""
    crops = decode_crops(clip.directory / "crops.mp4")
    crops = crops[:, CROP_TOP : CROP_TOP + CROP_SIDE, CROP_LEFT : CROP_LEFT + CROP_SIDE]
    with np.load(clip.directory / "tracks.npz") as tracks:
        shape = tracks["shape"].astype(np.float32)
    grey = [cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY) for crop in crops]
    return {"grey": np.stack(grey, axis=-1), "shape": shape}


def contrast(logits: torch.Tensor, starts: torch.Tensor, minimum_shift: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Contrastive losses, both directions, over all windows and over the windows of the same clip only.

    Args:
        logits: scaled cosines (C * N, C * N) of picture and sound windows of C clips with N windows each.
        starts: first frames of the windows (C, N).
        minimum_shift: windows of a clip that are closer than so many frames are no negatives for each other.
    """
    clips, count = starts.shape
    owner = torch.arange(clips, device=logits.device).repeat_interleave(count)
    same = owner[:, None] == owner[None]
    apart = (starts.flatten()[:, None] - starts.flatten()[None]).abs()
    itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    too_close = same & (apart < minimum_shift) & ~itself
    target = torch.arange(len(logits), device=logits.device)

    def both_ways(scores: torch.Tensor) -> torch.Tensor:
        return 0.5 * (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target))

    allowed = logits.masked_fill(too_close, -1e4)
    return both_ways(allowed), both_ways(allowed.masked_fill(~same, -1e4))


def far_partner(index: int, count: int, random: np.random.Generator) -> int | None:
    """A random window of the same clip at least FAR_SHIFT frames away; None when there is none."""
    choices = [*range(0, index - FAR_SHIFT + 1), *range(index + FAR_SHIFT, count)]
    return int(random.choice(choices)) if choices else None


def best_accuracy(true: np.ndarray, shifted: np.ndarray) -> tuple[float, float]:
    """The threshold on the cosine that tells true from shifted pairs best, as (balanced accuracy, threshold)."""
    thresholds = np.quantile(np.concatenate([true, shifted]), np.linspace(0, 1, 201))
    accuracies = [(np.mean(true > t) + np.mean(shifted <= t)) / 2 for t in thresholds]
    best = int(np.argmax(accuracies))
    return float(accuracies[best]), float(thresholds[best])
