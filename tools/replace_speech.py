"""Puts a newly trained speech model into an exported generator, whose pictures stay as they are.

    python tools/replace_speech.py --generator pretrained/lite/generator --speech runs/lite/speech/export

The two must have the same sizes. The generator draws from the speech model's tokens: a speech model that was trained
afresh needs a new generator; one in which only the mouth shape's last layers, the gains or the phonemes' side of the
fusion have changed does not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run as a script, this file sees tools/ only

from latent_diffusion import LatentLipDiffusion  # noqa: E402
from models.checkpoint import load_pretrained, load_weights  # noqa: E402
from models.speech_model import SpeechModel  # noqa: E402
from training.common import save_half  # noqa: E402
from utils.helpers import InputError  # noqa: E402


def replace_speech(generator: Path, speech: Path) -> None:
    """Replace the speech model in the folder `generator` by that in `speech`.

    Raises:
        InputError: a folder has no weights, or the sizes differ.
    """
    model = load_pretrained(LatentLipDiffusion, generator)
    load_weights(model.speech, speech)
    knows = bool(SpeechModel.load_config(speech).get("knows_phonemes", False))
    model.register_to_config(speech_settings={**model.config.speech_settings, "knows_phonemes": knows})
    scratch = generator.with_name(f".{generator.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    save_half(model, scratch)
    shutil.rmtree(generator)
    scratch.rename(generator)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", type=Path, required=True, help="exported generator; its folder is changed")
    parser.add_argument("--speech", type=Path, required=True, help="exported speech model")
    args = parser.parse_args(arguments)
    try:
        replace_speech(args.generator, args.speech)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
