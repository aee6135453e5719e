"""How long the command line takes to start, in parts, each in a process of its own; the second of two runs counts.

    python benchmarks/bench_startup.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, this file sees benchmarks/ only

from benchmarks.bench_pipeline import make_speech  # noqa: E402

_RUN = """
import sys, time
from pathlib import Path
started = float(sys.argv[1])
said = lambda what: print(f"{what}: {time.time() - started:.2f} s", flush=True)
from pipeline.options import Options, check_inputs
from utils.config import load_config
config, (video, audio, output) = load_config("model_config.yaml"), map(Path, sys.argv[2:])
check_inputs(video, audio, output, Options(), config.media)
said("inputs checked")
from pipeline import LipSyncPipeline
from utils.helpers import resolve_device
said("libraries loaded")
pipeline = LipSyncPipeline.load(config, resolve_device("auto"))
said("networks loaded")
import pipeline.job as module
fitted, first = module.fitted_frames, []
def watched(*arguments):
    for frame in fitted(*arguments):
        if not first:
            first.append(said("first frame decoded"))
        yield frame
module.fitted_frames = watched
seen = []
pipeline.run(video, audio, output, Options(), lambda done, total: seen or seen.append(said("first frame written")))
"""


def measure(command: list[str]) -> str:
    """Output of the second run, with the time it took as a whole."""
    for _ in range(2):
        started = time.time()
        filled = [argument.replace("STARTED", str(started)) for argument in command]
        done = subprocess.run(filled, cwd=ROOT, capture_output=True, text=True, check=False)
        lines = re.findall(r"^[\w ]+: [\d.]+ s$", done.stdout, re.MULTILINE)
        seconds = time.time() - started
    return "\n".join([*lines, f"ended: {seconds:.2f} s"])


def main() -> int:
    """Print all parts."""
    with tempfile.TemporaryDirectory() as folder:
        portrait, speech = ROOT / "examples" / "smile.png", Path(folder) / "speech.wav"
        make_speech(speech, ROOT / "examples" / "speech.wav", 1.0)
        files = [str(portrait), str(speech), str(Path(folder) / "out.mp4")]
        refused = ["--video", "missing.mp4", "--audio", "missing.wav", "--output", "out.mp4"]
        print("--help\n" + measure([sys.executable, "app.py", "--help"]))
        print("a missing file\n" + measure([sys.executable, "app.py", *refused]))
        print("a portrait and a second of speech\n" + measure([sys.executable, "-c", _RUN, "STARTED", *files]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
