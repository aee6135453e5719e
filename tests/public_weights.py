"""Small networks of the public layouts with random weights, written as the originals publish them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from engines.catalogue import ENTRIES, Shelf
from engines.hearing import make_whisper
from engines.latentsync.unet import LatentSyncUNet, UNetShape
from engines.musetalk.network import make_unet
from engines.vae import make_vae
from engines.wav2lip.network import Layout, Wav2Lip
from tests.published import rule_state

TINY_WIDTHS, TINY_VAE = (32, 32, 32, 32), (32, 32, 32, 32)


def wav2lip_layout(last_kernel: int, blocks: int) -> Layout:
    """Few channels, as many blocks as the size of the face needs."""
    down = ((8,), *((8, 8),) * (blocks - 2), (16, 16))
    return Layout(down, ((16,), *((8, 8),) * (blocks - 1)), last_kernel=last_kernel, head=8)


def write_public_weights(folder: Path) -> Path:
    """A folder like `engine_weights` with all public engines, their licences accepted."""
    torch.manual_seed(0)
    shared = folder / "shared"
    for name in ("sd-vae-ft-mse", "whisper", "whisper-tiny"):
        (shared / name).mkdir(parents=True)
    save_file(make_vae(TINY_VAE).state_dict(), shared / "sd-vae-ft-mse" / "diffusion_pytorch_model.safetensors")
    whisper = {f"encoder.{name}": tensor for name, tensor in make_whisper().state_dict().items()}
    torch.save({"dims": {}, "model_state_dict": whisper}, shared / "whisper" / "tiny.pt")
    save_file(
        {f"model.{name}": tensor for name, tensor in whisper.items()}, shared / "whisper-tiny" / "model.safetensors"
    )
    unet = {"state_dict": LatentSyncUNet(UNetShape(TINY_WIDTHS)).state_dict(), "global_step": 1}
    musetalk = make_unet(TINY_WIDTHS).state_dict()
    for engine, name, content in (
        ("latentsync-1.5", "latentsync_unet.pt", unet),
        ("latentsync-1.6", "latentsync_unet.pt", unet),
        ("musetalk-1.5", "unet.pth", musetalk),
        ("wav2lip", "wav2lip.pth", _wav2lip(3, 7)),
        ("wav2lip-gan", "wav2lip_gan.pth", _wav2lip(3, 7)),
        ("wav2lip-256", "wav2lip256.pth", _wav2lip(4, 8)),
        ("wav2lip-384", "wav2lip384.pth", _wav2lip(3, 9)),
    ):
        (folder / engine).mkdir()
        torch.save(content, folder / engine / name, _use_new_zipfile_serialization="wav2lip" not in engine)
    for name in ENTRIES:
        Shelf(folder).accept(name)
    return folder


def _wav2lip(last_kernel: int, blocks: int) -> dict:
    # By the rule of the stored numbers: with PyTorch's own random weights nothing of the sound would come through.
    state = rule_state(Wav2Lip(wav2lip_layout(last_kernel, blocks)), 2**0.5)
    return {"state_dict": {f"module.{name}": t for name, t in state.items()}, "optimizer": {}, "global_step": 1}
