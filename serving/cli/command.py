"""The command line: read the arguments, run the pipeline, show progress and a summary, end with the right code."""

from __future__ import annotations

import argparse
import functools
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipeline import engine_choice
from pipeline.face_list import face_lines, list_faces
from pipeline.options import CODECS, FITS, RESTS, WORDS, Options
from pipeline.tracks.options import TrackOptions
from serving.cli.batch import Columns, Finished, Outcome, check_files, read_rows, run_batch
from serving.cli.drawn import add_drawn, drawn_options, own_mouths
from serving.cli.engine_list import add_engines, engine_lines
from serving.cli.files import files_of_one_job, with_dashed_names
from serving.cli.host import add_host, make_host
from serving.cli.making import Maker, TrackJob, VideoJob, measure_engines
from serving.cli.progress import Progress, describe
from serving.cli.results import Results
from serving.cli.spoken_text import list_voices, spoken_text_of
from serving.cli.tracks import add_track, describe_track, track_facts, track_job
from utils.config import Config, InferenceConfig, load_config
from utils.disk import FULL, is_disk_full
from utils.helpers import InputError, parse_seconds
from utils.stopping import Stopped, stop_requested

if TYPE_CHECKING:
    from pipeline import Summary

OK, UNEXPECTED, BAD_INPUT = 0, 1, 2
CONFIG = Path(__file__).resolve().parent.parent.parent / "model_config.yaml"

_DESCRIPTION = """\
Make a person in a video (or a portrait picture) speak the words of a sound file, or a text.

The result is the same video, with the same size, frame rate and length rules, in which only the mouth region has
changed, together with the new sound as given."""

_EXAMPLES = """\
examples:
  A portrait speaks:
    python app.py --mode cli --video portrait.png --audio speech.wav --output result.mp4
  The same in Chinese from a text, with subtitles (result.srt):
    python app.py --mode cli --video portrait.png --text "你好，很高兴认识你。" --output result.mp4 --srt
  A video gets new words; the person on the left speaks; better quality, slower:
    python app.py --mode cli --video talk.mp4 --audio new.mp3 --output result.mp4 --face left --steps 4
  The sound is longer than the video: start the video again instead of playing it back and forth:
    python app.py --mode cli --video talk.mp4 --audio long.wav --output result.mp4 --fit loop
  The movement alone, for a rig of one's own (docs/animation.md), as Rhubarb and as Live Link Face write it:
    python app.py --mode cli --audio speech.wav --track mouth.tsv --track mouth.csv

exit codes: 0 done, 1 unexpected error (or failed rows of a list), 2 an input or option cannot be used, 130 stopped with
Ctrl-C, 143 by SIGTERM.
Whatever happens, the output file appears under its name only when it is complete."""

_OF_ONE_JOB = ("video", "audio", "output", "text", "text_file", "list_faces", "make_host", "track")
_OF_ALL_ROWS = (
    "help", "mode", "batch", "overwrite", "list_faces", "list_voices", "device", "config", "weights", "debug",
    "engine_weights", "list_engines", "get_engine", "accept_licence", "still",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Run the command line with these arguments (without the program's name).

    Returns:
        0 done, 1 unexpected error or failed rows of a list, 2 an input or option cannot be used.
    """
    debug = "--debug" in argv
    try:
        text, code = _answer(argv)
        print(text)
        return code
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Exception as error:  # noqa: BLE001 - the last line of defence: a sentence instead of a trace
        if stop_requested():  # libraries turn it into errors of their own
            raise Stopped from error
        if debug:
            traceback.print_exc()
        if is_disk_full(error):
            print(f"error: {FULL}", file=sys.stderr)
            return UNEXPECTED
        hint = "" if debug else " Run the same command with --debug for details."
        print(f"unexpected error: {type(error).__name__}: {error}.{hint}", file=sys.stderr)
        return UNEXPECTED


def _answer(argv: Sequence[str]) -> tuple[str, int]:
    """Do what the arguments ask for; returns what to print, and the exit code."""
    parser = build_parser(load_config(CONFIG).inference)
    argv = with_dashed_names(argv, parser._option_string_actions)
    arguments = parser.parse_args(argv)
    if arguments.batch is not None:
        outcome = _run_batch(_RowParser(parents=[parser], add_help=False, allow_abbrev=False), arguments, argv)
        return outcome.describe(), UNEXPECTED if outcome.failures else OK
    if arguments.list_engines or arguments.get_engine is not None:
        return _about_engines(arguments), OK
    if arguments.track is not None:
        return _make_track(arguments), OK
    missing = [name for name in ("video", "output") if getattr(arguments, name) is None]
    if arguments.list_faces is not None and arguments.video is not None:
        return _list_faces(arguments), OK
    if arguments.make_host is not None:
        config = _configured(arguments)
        return make_host(arguments, _maker(arguments, config), _options(arguments, config)), OK
    if missing:
        parser.error("the following arguments are required: " + ", ".join(f"--{name}" for name in missing))
    return describe(_run(arguments)), OK


class _RowParser(argparse.ArgumentParser):
    """The same parser, for the rows of a list: what is wrong is an InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}.")


def build_parser(defaults: InferenceConfig) -> argparse.ArgumentParser:
    """The parser; `defaults` are the configured values that its help shows."""
    parser = argparse.ArgumentParser(
        prog="python app.py",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--mode",
        choices=("cli", "web", "api", "worker", "live"),
        default="cli",
        help="cli: this; each of the others has its own --help",
    )
    _add_files(parser)
    _add_batch(parser)
    _add_text(parser)
    _add_quality(parser, defaults)
    _add_choices(parser, defaults)
    add_host(parser)
    add_track(parser)
    add_engines(parser, defaults.engine)
    add_drawn(parser)
    _add_machine(parser)
    return parser


def _add_files(parser: argparse.ArgumentParser) -> None:
    files = parser.add_argument_group("files (video, output, and a sound or a text are needed)")
    files.add_argument("--video", type=Path, help="video with a face, or a portrait picture; - is standard input")
    files.add_argument("--audio", type=Path, help="sound file (or a video with sound) that is to be spoken; - too")
    files.add_argument("--output", type=Path, help="video to write: .mp4, .mov, .mkv, .webm, or .zip (a PNG sequence)")
    files.add_argument("--overwrite", action="store_true", help="replace an output that exists; with --batch: make all")
    files.add_argument(
        "--list-faces",
        type=Path,
        nargs="?",
        const=Path(),
        metavar="SHEET",
        help="make no video, but write a numbered picture of all its faces (default: VIDEO_faces.png in the current "
        "folder), and show what to give to --face for each of them",
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    batch = parser.add_argument_group("many videos")
    batch.add_argument(
        "--batch",
        type=Path,
        metavar="CSV",
        help="make all videos and tracks of a list; its columns are named like the options: video, audio or text, "
        "lang, output or track, face, ... What is finished is not made again; LIST.results.json tells of each row",
    )


def _add_text(parser: argparse.ArgumentParser) -> None:
    text = parser.add_argument_group("text (instead of a sound; with --audio: what is said in that sound, for --srt)")
    source = text.add_mutually_exclusive_group()
    source.add_argument("--text", help="what the person is to say")
    source.add_argument("--text-file", type=Path, metavar="FILE", help="the same from a UTF-8 file")
    text.add_argument(
        "--lang", default="auto", metavar="CODE", help="en, zh, ja, fr, de, es, one of --list-voices, or auto"
    )
    text.add_argument("--voice", metavar="NAME", help="one of --list-voices (default: the first of the language)")
    text.add_argument("--speed", type=float, default=1.0, metavar="X", help="0.5 slow to 2 fast (default: 1)")
    text.add_argument("--srt", action="store_true", help="write subtitles beside the output, as .srt")
    text.add_argument("--list-voices", action=_ListVoices, help="show all voices and end")


class _ListVoices(argparse.Action):
    """Ends the program like --help, so that no file has to be named."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        print(list_voices(_maker(namespace, _configured(namespace)).processor))
        parser.exit()


def _add_quality(parser: argparse.ArgumentParser, defaults: InferenceConfig) -> None:
    quality = parser.add_argument_group("quality and speed")
    quality.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help=f"denoising steps; more is finer and slower (default: {defaults.steps}, other engines their own)",
    )
    quality.add_argument(
        "--guidance",
        type=float,
        metavar="X",
        help="exaggerate the mouth's movement; above 1 takes twice as long "
        f"(default: {defaults.guidance:g}, other engines their own)",
    )
    quality.add_argument(
        "--fast", action="store_true", help="less work for each frame; a larger file of the same quality"
    )
    quality.add_argument(
        "--adapt",
        metavar="TIME",
        help="let the model first learn from the video with its own sound how this person's lips move, for at most so "
        "long: 60s, 90, 1.5m (default: not at all)",
    )
    quality.add_argument(
        "--seed", type=int, metavar="N", help=f"the same number gives the same result (default: {defaults.seed})"
    )
    _add_picture(parser, defaults)


def _add_picture(parser: argparse.ArgumentParser, defaults: InferenceConfig) -> None:
    picture = parser.add_argument_group("picture")
    picture.add_argument(
        "--codec",
        choices=CODECS,
        default="auto",
        help="h264, hevc, ffv1 (lossless, large, for .mkv) or prores (for .mov); auto takes h264, for more than 8 bits "
        "hevc, and in .webm VP9 or AV1 (default: auto)",
    )
    picture.add_argument(
        "--crf",
        type=_quality,
        metavar="N",
        help="quality, 0 best to 51 worst, or auto: good, with about the bit rate of the source; not for ffv1 and "
        f"prores (default: {defaults.crf})",
    )
    picture.add_argument(
        "--size",
        metavar="N",
        help="longest side of the result, or 1280x720 (fitted in, with bars) (default: that of the video; still "
        f"pictures at most {defaults.still_side})",
    )
    picture.add_argument(
        "--fps",
        type=float,
        metavar="N",
        help="frames per second of the result (default: those of the video; below 12 a second while somebody speaks, "
        f"they are shown again up to 25); of a --track (default: {TrackOptions().fps:g})",
    )
    picture.add_argument(
        "--background",
        metavar="WHAT",
        help="what stands behind a picture with transparent parts: white, black, #rrggbb or a picture's name (default: "
        "they stay transparent in .webm, .mov and .zip, else white)",
    )


def _quality(text: str) -> int | str:
    return WORDS["crf"] if text == WORDS["crf"] else int(text)


def _add_choices(parser: argparse.ArgumentParser, defaults: InferenceConfig) -> None:
    choices = parser.add_argument_group("choices")
    choices.add_argument(
        "--face",
        default="largest",
        metavar="WHICH",
        help="which face gets the words: largest, left, right, index:N (0 is the leftmost), point:X,Y (the face at "
        "these pixels of the first frame), point:X,Y@SECONDS, speaker (in each scene the face whose lips fit the "
        "video's own sound), or box:X,Y,W,H around a drawn face, mouth:X,Y,W,H around its mouth (default: largest)",
    )
    choices.add_argument(
        "--min-confidence",
        type=float,
        metavar="X",
        help="frames whose face is turned away, covered, blurred or cut off stay as they are: 0 never, 1 at the least "
        f"doubt (default: {defaults.min_confidence:g})",
    )
    choices.add_argument(
        "--fit",
        choices=FITS,
        default="bounce",
        help="if the sound is longer than the video: play it back and forth, start again, hold the last frame, or "
        "cut the sound (default: bounce)",
    )
    choices.add_argument(
        "--keep-audio",
        default="none",
        metavar="WHAT",
        help="what becomes of the video's own sound: none, original (it alone is heard, the speech only moves the "
        "mouth) or mix:-12dB (under the speech, so loud) (default: none)",
    )
    choices.add_argument(
        "--rest",
        choices=RESTS,
        default="still",
        help="if the video is longer than the sound: the mouth rests to the end, keep the rest unchanged, or cut it "
        "off (default: still)",
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu or cuda (default: auto)")
    machine.add_argument("--config", type=Path, default=CONFIG, help="settings file (default: %(default)s)")
    machine.add_argument(
        "--weights", type=Path, metavar="FOLDER", help="trained weights (default: the configuration's weights_dir)"
    )
    machine.add_argument("--debug", action="store_true", help="show the full trace of an unexpected error")


def _list_faces(arguments: argparse.Namespace) -> str:
    sheet = arguments.list_faces
    if sheet == Path():
        sheet = Path(f"{arguments.video.stem}_faces.png")
    return face_lines(list_faces(arguments.video, sheet, _configured(arguments)), sheet)


def _about_engines(arguments: argparse.Namespace) -> str:
    """Get an engine, or list all of them."""
    config = _configured(arguments)
    if arguments.get_engine is not None:
        say = functools.partial(print, flush=True)
        engine_choice.get(arguments.get_engine, config.inference, arguments.accept_licence, say)
        return ""
    measure_engines(config, arguments.device)
    return engine_lines(engine_choice.list_engines(config.inference), config.inference.engine)


def _run(arguments: argparse.Namespace) -> Summary:
    config = _configured(arguments)
    with files_of_one_job(arguments, config.media.max_file_gb), Progress() as progress:
        return _maker(arguments, config).make(_job(arguments, config), progress)


def _make_track(arguments: argparse.Namespace) -> str:
    config = _configured(arguments)
    with files_of_one_job(arguments, config.media.max_file_gb):
        job = track_job(arguments, config.inference.seed)
        return describe_track(_maker(arguments, config).make_track(job), job)


def _run_batch(parser: argparse.ArgumentParser, arguments: argparse.Namespace, argv: Sequence[str]) -> Outcome:
    """Make all rows of a list. Everything that the list itself has wrong is said before any work."""
    named = [name for name in _OF_ONE_JOB if getattr(arguments, name) is not None]
    if named:
        option = "--" + named[0].replace("_", "-")
        raise InputError(f"With --batch the files and texts come from the list; leave {option} out.")
    config, table = _configured(arguments), arguments.batch
    columns, jobs = _columns(parser), []
    for row in read_rows(table, columns):
        try:
            for name in ("video", "output") if "track" not in row.cells else ():
                if name not in row.cells:
                    raise InputError(f"there is nothing in the column {name}.")
            row_arguments = parser.parse_args([*argv, *columns.arguments(row, table.parent)])
            tracks = row_arguments.track is not None
            job = track_job(row_arguments, config.inference.seed) if tracks else _job(row_arguments, config)
            job.options.check()
        except InputError as error:
            raise InputError(f"{table}, line {row.line}: {error}") from error
        jobs.append((row, job))
    check_files(jobs)
    finished = Finished(table, forget=arguments.overwrite)
    finished.check(jobs)
    maker = _maker(arguments, config)

    def make(job: VideoJob | TrackJob) -> Mapping[str, object]:
        if isinstance(job, TrackJob):
            track = maker.make_track(job)
            print(describe_track(track, job), flush=True)
            return track_facts(track)
        with Progress() as progress:
            summary = maker.make(job, progress)
        print(describe(summary), flush=True)
        return {"frames": summary.frames, "generated": summary.generated, "notes": summary.notes}

    return run_batch(jobs, finished, make, Results(table), arguments.debug)


def _columns(parser: argparse.ArgumentParser) -> Columns:
    """The options that may differ from row to row."""
    actions = [action for action in parser._actions if action.dest not in _OF_ALL_ROWS]
    switches = {action.dest for action in actions if action.nargs == 0}
    return Columns(frozenset({action.dest for action in actions} - switches), frozenset(switches))


def _job(arguments: argparse.Namespace, config: Config) -> VideoJob:
    subtitles = arguments.output.with_suffix(".srt") if arguments.srt else None
    text_file = arguments.text_file
    if subtitles is not None and text_file is not None and subtitles.resolve() == text_file.resolve():
        raise InputError(f"The subtitles would overwrite the text file {subtitles}; give the output another name.")
    return VideoJob(
        arguments.video,
        arguments.audio,
        arguments.output,
        _options(arguments, config),
        spoken_text_of(arguments),
        subtitles,
        own_mouths(arguments),
    )


def _maker(arguments: argparse.Namespace, config: Config) -> Maker:
    return Maker(config, arguments.device, CONFIG.parent / config.inference.weights_dir)


def _configured(arguments: argparse.Namespace) -> Config:
    config = engine_choice.with_engine_weights(load_config(arguments.config), arguments.engine_weights)
    if arguments.weights is None:
        return config
    inference = config.inference.model_copy(update={"weights_dir": arguments.weights.resolve()})
    return config.model_copy(update={"inference": inference})


def _options(arguments: argparse.Namespace, config: Config) -> Options:
    """Options of one run; what the command line leaves open comes from the configuration."""
    given = {name: getattr(arguments, name) for name in ("seed", "crf", "min_confidence", "engine")}
    chosen = {name: getattr(config.inference, name) if value is None else value for name, value in given.items()}
    chosen |= {"steps": arguments.steps, "guidance": arguments.guidance, "fast": arguments.fast}
    chosen["adapt"] = 0.0 if arguments.adapt is None else parse_seconds(arguments.adapt)
    plain = ("fit", "rest", "face", "codec", "background", "size", "keep_audio", "fps")
    return Options(**(chosen | {name: getattr(arguments, name) for name in plain} | drawn_options(arguments)))
