"""Networks of the `debug` size with random weights, laid out like `pretrained/`: real code, in seconds."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml

from latent_diffusion import LatentLipDiffusion
from models.autoencoder import MouthAutoencoder
from models.movement import MovementModel
from models.phoneme_recogniser import PhonemeRecogniser
from utils.config import load_config

REPO = Path(__file__).resolve().parent.parent


def write_tiny_weights(folder: Path) -> Path:
    """Fill `folder` like `pretrained/`, with random generator weights; returns it."""
    model = load_config(REPO / "model_config.yaml", ["size=debug"]).model
    torch.manual_seed(0)
    MouthAutoencoder(**model.autoencoder.model_dump()).save_pretrained(folder / "debug" / "autoencoder")
    generator = LatentLipDiffusion(speech_settings=model.speech.model_dump(), **model.generator.model_dump())
    generator.save_pretrained(folder / "debug" / "generator")
    told = {"token_width": model.speech.width, "shape_coefficients": model.speech.shape_coefficients}
    movement = MovementModel(**model.movement.model_dump(), **told)
    movement.save_pretrained(folder / "debug" / "movement")
    PhonemeRecogniser(**model.phonemes.model_dump()).save_pretrained(folder / "debug" / "phonemes")
    for name in ("whisper_tiny_en_encoder", "voice_activity", "mouth_shape"):
        (folder / name).symlink_to(REPO / "pretrained" / name, target_is_directory=True)
    return folder


def tiny_config(folder: Path, weights: Path) -> Path:
    """Write a configuration that uses such weights into `folder`; returns the file."""
    values = yaml.safe_load((REPO / "model_config.yaml").read_text(encoding="utf-8"))
    values["size"] = "debug"
    values["inference"]["weights_dir"] = str(weights)
    path = folder / "tiny_config.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path
