"""The configuration: loaded and checked once, then passed down in typed parts.

`model_config.yaml` holds every number that a user may want to change, with its unit beside it. An unknown key or a
wrong type is an `InputError` that names the key.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from utils.config_section import Fraction, Section
from utils.helpers import InputError
from utils.training_config import TrainingConfig

Size = Literal["debug", "lite", "base"]


class AutoencoderModel(Section):
    width: PositiveInt
    encoder_blocks: tuple[PositiveInt, PositiveInt, PositiveInt]
    decoder_blocks: tuple[PositiveInt, PositiveInt, PositiveInt]
    latent_channels: PositiveInt


class SyncNetModel(Section):
    audio_input: Literal["speech", "mel"]
    visual_widths: tuple[PositiveInt, ...]
    audio_width: PositiveInt
    embedding: PositiveInt
    dropout: float = Fraction


class ShapeSyncModel(SyncNetModel):
    visual_input: Literal["shapes"]
    shape_coefficients: PositiveInt


class SpeechModel(Section):
    feature_layers: PositiveInt
    feature_width: PositiveInt
    width: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    reach_s: PositiveFloat
    tokens_per_frame: PositiveInt
    phonemes: PositiveInt
    shape_coefficients: PositiveInt
    dropout: float = Fraction
    knows_rest: bool


class MovementModel(Section):
    width: PositiveInt
    blocks: PositiveInt
    dropout: float = Fraction


class PhonemesModel(Section):
    feature_layers: PositiveInt
    feature_width: PositiveInt
    width: PositiveInt
    blocks: PositiveInt
    phonemes: PositiveInt
    dropout: float = Fraction


class GeneratorModel(Section):
    block_channels: tuple[PositiveInt, PositiveInt, PositiveInt]
    layers_per_block: PositiveInt
    head_width: PositiveInt
    norm_groups: PositiveInt
    motion_layers: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]
    token_width: PositiveInt
    face_width: PositiveInt
    face_tokens: PositiveInt


class ModelSizes(Section):
    autoencoder: AutoencoderModel
    syncnet: SyncNetModel
    syncnet_judge: SyncNetModel
    syncnet_shapes: ShapeSyncModel
    speech: SpeechModel
    movement: MovementModel
    phonemes: PhonemesModel
    generator: GeneratorModel


class Models(Section):
    debug: ModelSizes
    lite: ModelSizes
    base: ModelSizes


class DataConfig(Section):
    processed_dir: Path
    window: PositiveInt
    fps: PositiveInt
    references: PositiveInt
    max_minutes_per_person: PositiveFloat
    cache_gb: PositiveFloat


class InferenceConfig(Section):
    engine: str
    engine_weights: Path
    weights_dir: Path
    steps: PositiveInt
    guidance: NonNegativeFloat
    mouth_gain: PositiveFloat
    opening_gain: PositiveFloat
    still_gain: PositiveFloat
    movement_temperature: NonNegativeFloat
    movement_steps: PositiveInt
    lip_closing: float = Fraction
    lip_closing_s: PositiveFloat
    window: PositiveInt
    overlap: int = Field(ge=0)
    fast_overlap: int = Field(ge=0)
    bank: PositiveInt
    glimpses: NonNegativeInt
    real_mouth_px: tuple[NonNegativeFloat, PositiveFloat]
    seed: int
    queue_windows: PositiveInt
    backend: Literal["auto", "torch", "openvino"]
    threads: NonNegativeInt
    compile: bool
    crf: Literal["auto"] | Annotated[int, Field(ge=0, le=51)]
    still_side: NonNegativeInt
    min_confidence: float = Fraction


class LanguageConfig(Section):
    engines: tuple[str, ...]


class LiveConfig(Section):
    hop: PositiveInt
    smoothing_ahead_s: NonNegativeFloat
    sound_ahead_s: NonNegativeFloat
    meeting_frames: PositiveInt
    fade_frames: int = Field(ge=0)


class HostsConfig(Section):
    dir: Path
    seconds: PositiveFloat
    look_s: PositiveFloat
    portrait_s: PositiveFloat
    max_px: PositiveInt


class SessionsConfig(Section):
    most: NonNegativeInt
    most_listeners: PositiveInt
    most_waiting: PositiveInt
    most_sound_s: PositiveFloat
    idle_s: PositiveFloat
    linger_s: PositiveFloat
    ice_servers: tuple[str, ...]


class AdaptationConfig(Section):
    read_s: PositiveFloat
    part_s: PositiveFloat
    reading_share: float = Fraction
    min_footage_s: PositiveFloat
    sync_windows: PositiveInt
    min_sync_confidence: NonNegativeFloat
    max_sync_offset: NonNegativeInt
    ridge: PositiveFloat
    learning_rate: PositiveFloat
    max_steps: PositiveInt
    windows_left_out: PositiveInt


class MediaLimits(Section):
    max_duration_s: PositiveFloat
    max_width: PositiveInt
    max_height: PositiveInt
    max_file_gb: PositiveFloat
    max_streams: PositiveInt


class FacesConfig(Section):
    models_dir: Path
    mouth_shape_dir: Path
    min_detection_score: float = Fraction
    min_presence: float = Fraction
    min_face_px: PositiveFloat
    max_yaw_deg: PositiveFloat
    max_pitch_deg: PositiveFloat
    min_inside: float = Fraction
    min_sharpness: float = Fraction
    cover_dir: Path | None
    max_cover: float = Field(gt=0.0, lt=1.0)
    speaker_look_s: PositiveFloat
    speaker_windows: PositiveInt
    min_speaker_confidence: NonNegativeFloat
    cut_threshold: float = Fraction
    fade_frames: int = Field(ge=0)
    feather_px: PositiveFloat


class PreprocessConfig(Section):
    min_clip_s: PositiveFloat
    max_clip_s: PositiveFloat
    crf: int = Field(ge=0, le=51)
    speech_variants: PositiveInt
    scene_minutes: NonNegativeFloat
    max_sync_offset: PositiveInt
    min_sync_confidence: NonNegativeFloat


class ServiceConfig(Section):
    data_dir: Path
    media: MediaLimits
    max_text: PositiveInt
    max_queue: PositiveInt
    max_jobs_per_key: PositiveInt
    max_gb_per_key: PositiveFloat
    max_requests_per_minute: PositiveInt
    max_steps: PositiveInt
    max_adapt_s: PositiveFloat
    max_run_s: PositiveFloat
    max_attempts: PositiveInt
    lease_s: float = Field(ge=3.0)
    stall_s: float = Field(ge=3.0)
    keep_h: PositiveFloat
    preview_s: PositiveFloat
    preview_px: PositiveInt
    min_free_gb: NonNegativeFloat
    upload_idle_s: PositiveFloat
    upload_max_s: PositiveFloat
    upload_min_rate: NonNegativeFloat
    allowed_hosts: tuple[str, ...]
    allowed_origins: tuple[str, ...]
    trusted_proxies: tuple[str, ...]
    public_url: str | None = Field(pattern=r"^https?://[^/?#]+/?$")
    webhook_origins: tuple[str, ...]
    webhook_attempts: PositiveInt
    webhook_to_private: bool
    input_origins: tuple[str, ...]
    input_to_private: bool
    input_max_s: PositiveFloat
    c2pa_certificate: Path | None
    c2pa_key: Path | None
    c2pa_algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"]
    c2pa_time_server: str | None


class Config(Section):
    """The whole configuration. `config.model` is the chosen size's part of `models`."""

    size: Size
    models: Models
    data: DataConfig
    training: TrainingConfig
    inference: InferenceConfig
    language: LanguageConfig
    live: LiveConfig
    hosts: HostsConfig
    sessions: SessionsConfig
    adaptation: AdaptationConfig
    media: MediaLimits
    faces: FacesConfig
    preprocess: PreprocessConfig
    service: ServiceConfig

    @property
    def model(self) -> ModelSizes:
        return getattr(self.models, self.size)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read and check a configuration file.

    Args:
        path: YAML file.
        overrides: "a.b=value" replacements, the value in YAML; the key must exist in the configuration.

    Raises:
        InputError: the file is missing or not YAML, a key is unknown or missing, or a value has a wrong type or
            lies outside its range; the sentence names the key.
    """
    values = _read(Path(path))
    for override in overrides:
        _override(values, override)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise InputError(_sentence(error, path)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read the configuration {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise InputError(f"The configuration {path} is not valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise InputError(f"The configuration {path} must hold named sections, see model_config.yaml.")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    """Set one "a.b=value" inside nested dictionaries; unknown last keys are left to the validation to name."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"--set {override}: write it as section.key=value.")
    *sections, last = key.split(".")
    for section in sections:
        values = values.get(section) if isinstance(values, dict) else None
        if not isinstance(values, dict):
            raise InputError(f"--set {key}: the configuration has no section '{section}'.")
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: '{text}' is not a valid value.") from error


def _sentence(error: ValidationError, path: str | Path) -> str:
    """The first fault of a failed validation in one sentence, and how many there are."""
    faults = error.errors()
    first = faults[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        what = "is not a known key"
    elif first["type"] == "missing":
        what = "is missing"
    else:
        what = f"has the value {first['input']!r}, but: {first['msg'].lower()}"
    more = f" ({len(faults) - 1} more faults)" if len(faults) > 1 else ""
    return f"Configuration {path}: '{key}' {what}{more}."
