"""What LatentSync and MuseTalk hear, against the original code: spectrogram, hidden states, steps of each frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from engines import hearing
from engines.hearing import LATENTSYNC, MUSETALK, HearingStyle, WhisperStates, make_whisper, step_table
from models.audio_encoder import SpeechEncoder, log_power
from tests.conftest import REPO
from tests.published import Golden, distance, key_list, needs_published, published_whisper, sound

TOLERANCE = 5e-5


def openai_names() -> dict[str, str]:
    """transformers' name -> OpenAI's, as published."""
    return {
        name.removeprefix("encoder."): theirs
        for name, theirs in key_list("whisper_tiny_transformers")["openai_names"].items()
        if name.startswith("encoder.")
    }


@pytest.fixture(scope="module")
def whisper() -> WhisperEncoder:
    return published_whisper()


@needs_published
def test_openai_names_are_known(whisper: WhisperEncoder) -> None:
    for name, theirs in openai_names().items():
        assert hearing.transformers_name(theirs.removeprefix("encoder.")) == name
    assert set(openai_names()) == set(whisper.state_dict())


@needs_published
@pytest.mark.parametrize("case", ["3s", "31s7"])
def test_latentsync_states(case: str, whisper: WhisperEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly the original's, seam included, where pieces do not overlap."""
    monkeypatch.setattr(hearing, "OVERLAP_STEPS", 0)
    monkeypatch.setattr(hearing, "FADE_STEPS", 0)
    golden = Golden("latentsync_whisper_features")
    facts = golden.facts["cases"][case]
    samples = sound(facts["seconds"], facts["signal_seed"]) / np.float32(32768)
    columns = golden[f"{case}_mel_cols"]
    power = log_power(samples, 0, facts["mel_frames"], end=len(samples))
    mel = hearing.scaled(power, float(power.max()))[:, columns].numpy()
    assert np.abs(mel - golden[f"{case}_mel"]).max() < TOLERANCE  # sums in single precision depend on the processor
    heard = WhisperStates(whisper, LATENTSYNC, samples)
    assert len(heard) == facts["feature_length"]
    rows = golden[f"{case}_feat_rows"]
    assert distance(heard.part(0, len(heard))[rows], golden[f"{case}_feat"]) < TOLERANCE
    chunks = heard.frames(golden[f"{case}_chunk_ids"] / 25)
    assert distance(chunks, golden[f"{case}_chunks"]) < TOLERANCE


@needs_published
def test_musetalk_states(whisper: WhisperEncoder) -> None:
    golden = Golden("musetalk_whisper_features")
    heard = WhisperStates(whisper, MUSETALK, golden["signal"] / np.float32(32768))
    rows = golden["hidden_rows"]
    inside = rows < len(heard)
    assert inside.sum() >= 2
    assert distance(heard.part(0, len(heard))[rows[inside]], golden["hidden"][inside]) < TOLERANCE
    for fps in (25, 30):
        assert distance(heard.frames(golden["chunk_ids"] / fps), golden[f"chunks{fps}"]) < TOLERANCE


MISTAKES = {
    "final norm": replace(LATENTSYNC, final_norm=True),
    "silence behind": replace(LATENTSYNC, filled_with_zero=False, whole_clip=False),
    "zeros at the ends": replace(LATENTSYNC, edges_repeat=False),
}


@needs_published
@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_other_network_s_style_is_seen(mistake: str, whisper: WhisperEncoder) -> None:
    golden = Golden("latentsync_whisper_features")
    heard = WhisperStates(whisper, MISTAKES[mistake], golden["3s_signal"] / np.float32(32768))
    assert distance(heard.frames(golden["3s_chunk_ids"] / 25), golden["3s_chunks"]) > 100 * TOLERANCE


@needs_published
def test_latentsync_steps_of_frames() -> None:
    """Every frame rate, every length; one step earlier or later would be seen."""
    golden = Golden("latentsync_audio_chunks")
    assert len(golden.facts["n_chunks"]) == 72
    for name, count in golden.facts["n_chunks"].items():
        length, fps = (float(part.strip("Lfps")) for part in name.split("_")[1:])
        ours = np.clip(step_table(np.arange(count) / fps), 0, length - 1)
        ours = ours if len(ours) == len(golden[name]) else np.concatenate([ours[:40], ours[-40:]])
        assert np.array_equal(ours, golden[name]), name


@needs_published
def test_musetalk_steps_of_frames() -> None:
    """The original rounds frame rates down and starts earlier below 25 frames a second; ours does at none."""
    golden, compared = Golden("musetalk_audio_chunks"), 0
    for name, count in golden.facts["n_frames"].items():
        if isinstance(count, str):  # the original ends with an error
            continue
        seconds, fps = float(name.split("_")[0][1:]), int(float(name.split("fps")[1]))
        length, before = int(seconds * 50), 2 * int(np.ceil(50 / fps))
        ours = step_table(np.arange(count) / fps, before)
        ours = np.where((ours >= 0) & (ours < length), ours, -1)
        ours = ours if len(ours) == len(golden[f"idx_{name}"]) else np.concatenate([ours[:40], ours[-40:]])
        assert np.array_equal(ours, golden[f"idx_{name}"]), name
        compared += fps in (25, 30) and before == hearing.BEFORE
    assert compared >= 10


@needs_published
def test_five_states_of_a_step_lie_side_by_side() -> None:
    golden = Golden("latentsync_audio_chunks")
    example = golden["flatten_example_in"]
    assert np.array_equal(example.reshape(1, -1, example.shape[-1])[0], golden["flatten_example_out"])


@pytest.fixture(scope="module")
def real_whisper() -> WhisperEncoder:
    """The encoder in the repository, which is of the same size, with all positions."""
    trained = SpeechEncoder.from_pretrained(REPO / "pretrained" / "whisper_tiny_en_encoder").encoder.state_dict()
    network = make_whisper()
    network.load_state_dict(trained | {"embed_positions.weight": network.embed_positions.weight})
    return network.eval()


@pytest.mark.parametrize("style", [LATENTSYNC, MUSETALK])
def test_pieces_leave_no_seam(
    style: HearingStyle, real_whisper: WhisperEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the original begins a new piece, two successive steps differ as much as anywhere else."""
    samples = sound(33.0, 7) / np.float32(32768)

    def jump(heard: WhisperStates) -> float:
        near = heard.part(1300, 1600)
        steps = np.abs(np.diff(near, axis=0)).mean(axis=(1, 2))
        return float(steps[195:205].max() / np.median(steps))

    ours = WhisperStates(real_whisper, style, samples)
    assert jump(ours) < 2.0
    whole = ours.part(0, len(ours))
    assert len(whole) == len(ours) == 1650
    parts = [ours.part(first, min(first + 137, 1650)) for first in range(0, 1650, 137)]
    assert np.array_equal(np.concatenate(parts), whole)
    monkeypatch.setattr(hearing, "OVERLAP_STEPS", 0)
    monkeypatch.setattr(hearing, "FADE_STEPS", 0)
    assert jump(WhisperStates(real_whisper, style, samples)) > 2.0


def test_a_sound_shorter_than_a_step_is_silence(real_whisper: WhisperEncoder) -> None:
    heard = WhisperStates(real_whisper, LATENTSYNC, np.zeros(100, np.float32))
    assert len(heard) == 0 and not heard.frames(np.array([0.0, 1.0])).any()
