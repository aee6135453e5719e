"""Training of what phonemes add to the sound: the phonemes' side of the fusion alone, on a trained speech model.

The sound's side, the temporal encoder and the shape head stay as they are, so a sound without phonemes gives exactly
the same tokens and shapes as before, and a generator that was trained on them needs no new training. What is learnt:
from phonemes alone, and from phonemes with a noisy sound, to come as near as possible to the true mouth shapes and to
the tokens that the clean sound would have given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset
from torch.utils.tensorboard import SummaryWriter

from data.dataset import (
    SPEECH_RATE,
    Clip,
    StepBatches,
    clip_activity,
    clip_resting,
    clip_shape,
    clip_speech,
    load_clips,
)
from models.checkpoint import load_checked, load_weights
from models.phonemes import SILENCE
from models.speech_model import SpeechContext
from training.common import Batch, Losses, decay_groups
from training.speech import SpeechSampler, SpeechStage, load_speech, read_between
from utils.config import Config
from utils.helpers import InputError

CONDITIONS = ("audio", "noisy audio", "text", "audio + text", "noisy audio + text")


class FusionStage(SpeechStage):
    """See the module. Validation: correlation of the mouth opening, and the gate, for each of `CONDITIONS`."""

    name = "fusion"

    def build(self, config: Config, device: torch.device) -> None:
        super().build(config, device)
        path = self.settings.speech or config.training.common.weights_dir / config.size / "generator"
        load_checked(self.model, load_speech(path).state_dict(), str(path))
        self.model.register_to_config(knows_phonemes=True)
        self.model.requires_grad_(False)
        fusion = self.model.fusion
        self._trained = torch.nn.ModuleList([fusion.embedding, fusion.cross, fusion.gate])
        self._trained.requires_grad_(True)
        fusion.no_sound.requires_grad_(True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        return [*decay_groups(self._trained), {"params": [self.model.fusion.no_sound], "weight_decay": 0.0}]

    def train_batches(self, rank: int = 0) -> Dataset:
        check_clips(self.config.data.processed_dir / "train")
        sampler = FusionSampler(self.config, self.settings, scene_share=0.0)
        return StepBatches(sampler.draw, self.settings.batch_size, self.config.training.common.seed, rank)

    def training_step(self, batch: Batch, step: int) -> Losses:
        self.model.eval()  # what is frozen must do what it does in use
        more = {name: batch[name] for name in ("activity", "resting")}
        with torch.no_grad():
            clean = self.model(batch["clean"], None, batch["times"], **more)
        has_speech = torch.rand(len(batch["speech"]), device=self.device) >= self.settings.speech_drop
        heard = self.model(batch["speech"], batch["phonemes"], batch["times"], has_speech, None, **more)
        losses = self._losses(heard.shape.float(), batch)
        tokens = F.smooth_l1_loss(heard.tokens.float(), clean.tokens.float(), beta=0.5)
        loss = losses.pop("loss") + self.settings.token_weight * tokens
        gates = {"gate": heard.gate[has_speech].mean()} if has_speech.any() else {}
        return {"loss": loss, "tokens": tokens.detach(), **losses, **{k: v.detach() for k, v in gates.items()}}

    @torch.no_grad()
    def validate(self, step: int, writer: SummaryWriter) -> dict[str, float]:
        people: dict[str, dict[str, list[np.ndarray]]] = {}
        gates: dict[str, list[np.ndarray]] = {name: [] for name in CONDITIONS}
        for clip in self._validation_clips():
            shape, valid = clip_shape(clip)
            own = people.setdefault(clip.person, {name: [] for name in (*CONDITIONS, "true")})
            own["true"].append(_centred((shape @ self._opening)[valid]))
            for name in CONDITIONS:
                found = self._attend(clip, name)
                own[name].append(_centred((found.shape[0].float().cpu().numpy() @ self._opening)[valid]))
                gates[name].append(found.gate[0].float().cpu().numpy())
        metrics = {f"opening {name}": _mean_correlation(people, name) for name in CONDITIONS}
        metrics |= {f"gate {name}": float(np.concatenate(values).mean()) for name, values in gates.items()}
        improved = ("text", "audio + text", "noisy audio + text")
        return {**metrics, "score": float(np.mean([metrics[f"opening {name}"] for name in improved]))}

    def finish(self) -> None:
        """Nothing: the gains of the speech stage are in the weights that this stage starts from."""

    def initialise(self, directory: Path) -> None:
        """Go on from a fusion that was exported earlier."""
        load_weights(self.model, directory)

    def _validation_clips(self) -> list[Clip]:
        if self._validation is None:
            data = self.config.data
            check_clips(data.processed_dir / "val")
            self._validation = load_clips(data.processed_dir, "val", data.window, data.fps)
        return self._validation

    def _attend(self, clip: Clip, condition: str) -> SpeechContext:
        """What the model makes of a whole clip."""
        times = (np.arange(clip.frames, dtype=np.float32) + clip.offset) / self.config.data.fps
        sound = clip_noisy(clip)[0] if "noisy" in condition else clip_speech(clip)[0]
        values = (np.asarray(sound, np.float32), clip_phonemes(clip).astype(np.int64), times, clip_activity(clip))
        speech, phonemes, times, activity = (torch.from_numpy(x)[None].to(self.device) for x in values)
        return self.model(
            speech if "audio" in condition else None,
            phonemes if "text" in condition else None,
            times,
            activity=activity,
            resting=torch.tensor([clip_resting(clip)], device=self.device),
        )


class FusionSampler(SpeechSampler):
    """Draws as `SpeechSampler` does, with phonemes whose times are a little off, and in most samples a noisy sound."""

    def _sounds(self, clip: Clip, steps: np.ndarray, random: np.random.Generator) -> dict[str, torch.Tensor]:
        """ "speech" (T, 5, 384), "clean" the same of the clean sound, "phonemes" (T,) int64."""
        settings = self._settings
        copies = clip_noisy(clip) if random.random() < settings.noisy_share else clip_speech(clip)
        return {
            "speech": self._disturbed(copies, steps, random),
            "clean": torch.from_numpy(read_between(clip_speech(clip)[0], steps)),
            "phonemes": torch.from_numpy(_heard_at(clip_phonemes(clip), _off(steps, settings.time_jitter_s, random))),
        }


def check_clips(folder: Path) -> None:
    """Raise InputError where clips of a split lack what data/phoneme_tracks.py adds."""
    clips = [meta.parent for meta in folder.glob("*/meta.json")]
    lacking = [clip for clip in clips if not (clip / "noisy.npy").is_file()]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(clips)} clips in {folder} have no phonemes or no noisy sound: "
            "run python -m data.phoneme_tracks first."
        )


def clip_phonemes(clip: Clip) -> np.ndarray:
    """Ids (T50,) of what is said in a clip."""
    return np.load(clip.directory / "phonemes.npy")


def clip_noisy(clip: Clip) -> np.ndarray:
    """Speech features of the noisy copies of a clip's sound, float16 (V, T50, 5, 384), read as needed."""
    return np.load(clip.directory / "noisy.npy", mmap_mode="r")


def _off(steps: np.ndarray, spread_s: float, random: np.random.Generator) -> np.ndarray:
    """Steps (T,) that are off by a slowly changing time: that of a synthesiser or an aligner is not exact."""
    knots = random.normal(scale=spread_s * SPEECH_RATE, size=2 + len(steps) // 12)
    return steps + np.interp(np.arange(len(steps)), np.linspace(0, len(steps), len(knots)), knots)


def _heard_at(track: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Ids (T,) int64 of a track (T50,) at fractional steps; silence outside of it."""
    nearest = np.rint(steps).astype(int)
    inside = (nearest >= 0) & (nearest < len(track))
    return np.where(inside, track[nearest.clip(0, len(track) - 1)], SILENCE).astype(np.int64)


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean()


def _mean_correlation(people: dict[str, dict[str, list[np.ndarray]]], name: str) -> float:
    """Mean over people of the correlation of one condition's mouth opening with the true one."""
    pairs = [(np.concatenate(own[name]), np.concatenate(own["true"])) for own in people.values()]
    return float(np.mean([np.corrcoef(a, b)[0, 1] if a.std() > 1e-6 else 0.0 for a, b in pairs]))
