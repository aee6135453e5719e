"""The part of the configuration that training uses; see `utils.config`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from utils.config_section import Fraction, Section


class CommonTraining(Section):
    seed: int
    num_workers: int = Field(ge=0)
    checkpoint_every_s: PositiveFloat
    log_every: PositiveInt
    gradient_clip: PositiveFloat
    weights_dir: Path


class StageConfig(Section):
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    warmup_steps: int = Field(ge=0)
    max_steps: PositiveInt
    max_minutes: PositiveFloat | None
    ema_decay: float = Field(ge=0.0, lt=1.0)
    precision: Literal["bf16", "fp32"]
    validate_every: PositiveInt


class AutoencoderTraining(StageConfig):
    crop: PositiveInt = Field(multiple_of=16)
    l1_weight: NonNegativeFloat
    pyramid_weight: NonNegativeFloat
    perceptual_weight: NonNegativeFloat
    perceptual_network: Path | None
    mouth_weight: PositiveFloat
    latent_weight: NonNegativeFloat
    adversarial_weight: NonNegativeFloat
    adversarial_from_step: int = Field(ge=0)
    matching_weight: NonNegativeFloat
    decoder_only: bool
    discriminator_learning_rate: PositiveFloat
    discriminator_width: PositiveInt
    colour_jitter: float = Fraction


class CoverTraining(StageConfig):
    width: PositiveInt
    things_share: float = Fraction
    turned_share: float = Fraction
    colour_jitter: float = Fraction
    shift_px: NonNegativeFloat


class SyncTraining(StageConfig):
    seed: int
    shifts: PositiveInt
    near_shifts: int = Field(ge=0)
    minimum_shift: PositiveInt
    shape_weight: NonNegativeFloat
    audio_noise: NonNegativeFloat
    feature_drop: float = Fraction
    time_mask: float = Fraction


class SyncNetTraining(SyncTraining):
    brightness_jitter: float = Fraction
    affine_jitter: float = Fraction


class ShapeSyncTraining(SyncTraining):
    size_jitter: NonNegativeFloat
    offset_jitter: NonNegativeFloat
    shape_noise: NonNegativeFloat


class ShapeTraining(StageConfig):
    window_s: PositiveFloat
    velocity_weight: NonNegativeFloat
    gap_weight: NonNegativeFloat
    closed_weight: NonNegativeFloat
    correlation_weight: NonNegativeFloat
    tempo_jitter: float = Fraction
    feature_noise: NonNegativeFloat
    feature_drop: float = Fraction
    time_mask: float = Fraction


class SpeechTraining(ShapeTraining):
    trunk_rate: float = Fraction
    new_head: bool
    scene_share: float = Fraction
    pause_gain: PositiveFloat


class FusionTraining(ShapeTraining):
    speech: Path | None
    noisy_share: float = Fraction
    speech_drop: float = Fraction
    token_weight: NonNegativeFloat
    time_jitter_s: NonNegativeFloat


class MovementTraining(StageConfig):
    speech: Path | None
    sync: Path | None
    sync_weight: NonNegativeFloat
    copies: PositiveInt
    full_noise: float = Fraction
    velocity_weight: NonNegativeFloat
    scene_share: float = Fraction
    short_share: float = Fraction
    prefix_drop: float = Fraction
    prefix_least: float = Fraction
    prefix_noise: NonNegativeFloat


class PhonemesTraining(StageConfig):
    corpus: Path
    window_s: PositiveFloat
    ctc_weight: NonNegativeFloat
    feature_noise: NonNegativeFloat
    feature_drop: float = Fraction
    time_mask: float = Fraction


class GeneratorTraining(StageConfig):
    autoencoder: Path | None
    syncnet: Path | None
    speech: Path | None
    full_noise: float = Fraction
    shape_noise: NonNegativeFloat
    shape_drop: float = Fraction
    speech_drop: float = Fraction
    outside_weight: NonNegativeFloat
    colour_jitter: float = Fraction
    flow_weight: NonNegativeFloat
    pixel_from: float = Fraction
    pixel_every: PositiveInt
    pixel_windows: PositiveInt
    pixel_weight: NonNegativeFloat
    sync_weight: NonNegativeFloat
    temporal_weight: NonNegativeFloat
    perceptual_weight: NonNegativeFloat
    perceptual_network: Path | None
    adversarial_weight: NonNegativeFloat
    adversarial_from: float = Fraction
    matching_weight: NonNegativeFloat
    discriminator_learning_rate: PositiveFloat
    discriminator_width: PositiveInt


class TrainingConfig(Section):
    common: CommonTraining
    autoencoder: AutoencoderTraining
    syncnet: SyncNetTraining
    syncnet_judge: SyncNetTraining
    syncnet_shapes: ShapeSyncTraining
    phonemes: PhonemesTraining
    speech: SpeechTraining
    fusion: FusionTraining
    movement: MovementTraining
    generator: GeneratorTraining
    cover: CoverTraining
