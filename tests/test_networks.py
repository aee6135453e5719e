"""The way that the networks are compiled for a GPU, as far as it can be seen without one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.autoencoder import MouthAutoencoder
from models.networks import TorchNetworks


def test_compiled_networks_give_results_that_the_next_call_does_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs write into the same memory at each call."""
    compiled: list[dict[str, Any]] = []

    def into_one_place(function: Any, **settings: Any) -> Any:
        compiled.append(settings)
        place: list[torch.Tensor] = []

        def call(*inputs: Any, **named: Any) -> Any:
            result = function(*inputs, **named)
            whole = result[0] if isinstance(result, tuple) else result
            if place:
                place[0].copy_(whole)
            else:
                place.append(whole)
            return (place[0],) if isinstance(result, tuple) else place[0]

        return call

    class Unet(torch.nn.Module):
        def forward(self, stacked: torch.Tensor, timestep: torch.Tensor, *_: Any, **__: Any) -> Any:
            return (stacked[:, :16] * timestep,)

    monkeypatch.setattr(torch, "compile", into_one_place)
    autoencoder = MouthAutoencoder(8).eval().to(torch.bfloat16)
    with torch.inference_mode():
        networks = TorchNetworks(autoencoder, Unet(), torch.device("cpu"), compiled=True)
        assert len(compiled) == 3 and all(settings["mode"] == "reduce-overhead" for settings in compiled)
        stacked, tokens = torch.ones(1, 45, 2, 20, 20), torch.ones(2, 4, 8)
        first = networks.difference(stacked, torch.tensor([1.0]), tokens)
        second = networks.difference(stacked, torch.tensor([3.0]), tokens)
        assert (first == 1).all() and (second == 3).all() and first.dtype == torch.float32
