"""Which number format a device computes fastest in without visible loss."""

from __future__ import annotations

import torch


def fast_dtype(device: torch.device | str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it natively (recent GPUs, CPUs with AMX or AVX512-BF16), else float32."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32
