"""The stages of training, by name."""

from __future__ import annotations

from training.common import Stage

STAGES = (
    "autoencoder", "syncnet", "syncnet_judge", "syncnet_shapes", "phonemes", "speech", "fusion", "movement",
    "generator", "cover",
)  # fmt: skip


def make_stage(name: str) -> Stage:
    """The stage of a name out of `STAGES`; imported only when asked for, since each pulls in its own networks."""
    if name == "autoencoder":
        from training.autoencoder import AutoencoderStage

        return AutoencoderStage()
    if name in ("syncnet", "syncnet_judge"):
        from training.syncnet import SyncNetJudgeStage, SyncNetStage

        return SyncNetStage() if name == "syncnet" else SyncNetJudgeStage()
    if name == "syncnet_shapes":
        from training.syncnet_shapes import ShapeSyncStage

        return ShapeSyncStage()
    if name == "phonemes":
        from training.phonemes import PhonemesStage

        return PhonemesStage()
    if name == "speech":
        from training.speech import SpeechStage

        return SpeechStage()
    if name == "fusion":
        from training.fusion import FusionStage

        return FusionStage()
    if name == "movement":
        from training.movement import MovementStage

        return MovementStage()
    if name == "cover":
        from training.cover import CoverStage

        return CoverStage()
    from training.generator import GeneratorStage

    return GeneratorStage()
