"""Numbers that the networks' original code computed with weights of a stated rule, and those weights."""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.conftest import REPO

LEFT_AS_MADE = ("num_batches_tracked", "pos_encoder.pe", "positional_embedding", "embed_positions.weight")


def published_dir() -> Path:
    """The folder of key lists and numbers: $LIPSYNC_PUBLIC_CHECKPOINTS, else ../shared/public_checkpoints."""
    named = os.environ.get("LIPSYNC_PUBLIC_CHECKPOINTS")
    return Path(named) if named else REPO.parent / "shared" / "public_checkpoints"


needs_published = pytest.mark.skipif(
    not (published_dir() / "golden").is_dir(),
    reason=f"no numbers of the original code at {published_dir()}: set LIPSYNC_PUBLIC_CHECKPOINTS",
)
needs_time = pytest.mark.skipif(
    os.environ.get("LIPSYNC_FULL") != "1",
    reason="full-size networks take gigabytes and minutes: set LIPSYNC_FULL=1",
)


@dataclass(frozen=True)
class Golden:
    """One case: its description and its arrays."""

    name: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads((published_dir() / "golden" / f"{self.name}.json").read_text())

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        with np.load(published_dir() / "golden" / f"{self.name}.npz") as file:
            return dict(file)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])


def key_list(name: str) -> dict[str, Any]:
    """What is known of a published file: `tensors`, `norms` and more."""
    return json.loads((published_dir() / "keys" / f"{name}.json").read_text())


def rule_tensor(name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """The weights that the numbers were made with, float32."""
    drawn = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    last = name.rsplit(".", 1)[-1]
    if last == "running_mean":
        return np.float32(0.1) * drawn
    if last == "running_var":
        return np.float32(1) + np.float32(0.1) * np.abs(drawn)
    if len(shape) >= 2:
        return drawn * np.float32(gain / math.sqrt(math.prod(shape[1:])))
    return np.float32(1) + np.float32(0.1) * drawn if last == "weight" else np.float32(0.02) * drawn


def rule_state(network: nn.Module, gain: float = 1.0, **factors: float) -> dict[str, torch.Tensor]:
    """The state of a network with weights by the rule, but for what its class makes itself.

    Args:
        network: what the names and shapes are taken from; it is not changed.
        gain: of tensors of two or more dimensions.
        factors: name (with "__" for ".") -> extra factor.
    """
    more = {name.replace("__", "."): np.float32(factor) for name, factor in factors.items()}
    state = {}
    for name, tensor in network.state_dict().items():
        if name.endswith(LEFT_AS_MADE):
            state[name] = tensor.clone()
        else:
            drawn = rule_tensor(name, tuple(tensor.shape), gain)
            state[name] = torch.from_numpy(drawn * more.get(name, np.float32(1)))
    return state


def by_rule(network: nn.Module, gain: float = 1.0, **factors: float) -> nn.Module:
    """The network with weights by the rule, for evaluation."""
    network.load_state_dict(rule_state(network, gain, **factors))
    return network.eval()


def distance(found: np.ndarray | torch.Tensor, expected: np.ndarray) -> float:
    """Largest difference, in standard deviations of what is expected."""
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found.astype(np.float64) - expected).max() / expected.std())


def sound(seconds: float, seed: int) -> np.ndarray:
    """The synthetic voice of the numbers, int16 at 16 kHz."""
    count = round(16000 * seconds)
    t = np.arange(count) / 16000
    phase = 2 * np.pi * np.cumsum(110 + 30 * np.sin(2 * np.pi * 0.7 * t)) / 16000
    parts = ((1, 1), (2, 0.6), (3, 0.4), (5, 0.3), (8, 0.2), (13, 0.15), (21, 0.1))
    voice = sum(a * np.sin(k * phase + 0.3 * k) for k, a in parts)
    voice = voice * 0.18 * (0.55 + 0.45 * np.sin(2 * np.pi * 3.1 * t + 0.5))
    voice += 0.01 * np.random.default_rng(seed).standard_normal(count)
    return np.round(32767 * voice).astype(np.int16)


def published_whisper() -> nn.Module:
    """Whisper tiny's encoder with weights by the rule, which goes by OpenAI's names."""
    from engines.hearing import make_whisper

    network = make_whisper()
    state, theirs = network.state_dict(), key_list("whisper_tiny_transformers")["openai_names"]
    for name, tensor in state.items():
        if name != "embed_positions.weight":
            state[name] = torch.from_numpy(rule_tensor(theirs[f"encoder.{name}"], tuple(tensor.shape)))
    network.load_state_dict(state)
    return network.eval()
