"""Scores lip-sync results against real videos; prints a table, writes JSON and a report that opens by double click.

    python evaluate.py --results DIR --ground_truth DIR [--report report.html] [--json scores.json]
    python evaluate.py --self_reenactment raw/test/videos --cross raw/test/videos --clips 200 --workers 2
    python evaluate.py --mouth raw/test/videos --clips 10 --seconds 6 --portraits

The first form scores videos of any program (each has the name of its real video). The second one runs this program
first: ``--self_reenactment`` gives every clip its own speech, so that the result should be the clip; ``--cross`` gives
it another person's. Videos made on the way stay in ``--output`` and are not made again: after an interruption the same
command goes on. ``--mouth`` looks at the mouth alone (movement, what is left of the old one, rest, detail, teeth,
closures): the longest clip of each person, largest pictures first; without a folder it looks at ``--results``.
Needs ``pip install -r requirements-eval.txt``.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from evaluation.clips import find_clips, in_step, longest, pair_with_speech, pair_with_truth
from evaluation.features import check_packages
from evaluation.mouth_report import mouth_html, mouth_json, mouth_text
from evaluation.mouth_run import LEAST_S, MouthJob, MouthSettings, choose_clips, measure_all
from evaluation.report import as_html
from evaluation.run import GIVEN, NEW, OWN, Job, Settings, engine_names, score_all
from evaluation.totals import as_json, as_text, summarise
from utils.config import Config, load_config
from utils.helpers import InputError, atomic_path, parse_seconds

SHEET_CLIPS = 12  # clips with pictures in the report


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_argument_group("what is scored")
    what.add_argument("--results", type=Path, metavar="DIR", help="videos to score, named as their real videos")
    what.add_argument("--ground_truth", type=Path, metavar="DIR", help="the real videos")
    what.add_argument("--self_reenactment", type=Path, metavar="DIR", help="real videos that get their own speech")
    what.add_argument("--cross", type=Path, metavar="DIR", help="real videos that get another person's speech")
    what.add_argument(
        "--mouth", type=Path, nargs="*", metavar="DIR", help="real videos to measure the mouth on; none: of the results"
    )
    what.add_argument("--seconds", type=float, default=6.0, help="of each clip, with --mouth (default: %(default)s)")
    what.add_argument("--portraits", action="store_true", help="with --mouth: also a frame of each clip as a still")
    what.add_argument("--clips", type=int, metavar="N", help="only so many clips, evenly spread over the people")
    what.add_argument(
        "--in_step",
        type=Path,
        metavar="DIR",
        help="processed split: shift the real sounds by what preprocessing found them to be off the picture",
    )
    what.add_argument("--seed", type=int, default=0, help="of the choice of new speech (default: %(default)s)")
    what.add_argument("--engines", metavar="NAMES", help="what draws the mouths, such as lite,wav2lip: a row for each")
    what.add_argument("--adapt", metavar="TIME", help="also with adaptation to the speaker, for example 60s")
    what.add_argument("--adapt_clips", type=int, metavar="N", help="adaptation for only the N longest clips")
    output = parser.add_argument_group("output")
    output.add_argument("--report", type=Path, metavar="FILE", help="report to write, .html")
    output.add_argument("--json", type=Path, metavar="FILE", help="scores of every clip and in total")
    output.add_argument(
        "--output", type=Path, default=Path("outputs/evaluation"), help="where videos go that are made (%(default)s)"
    )
    machine = parser.add_argument_group("networks and machine")
    machine.add_argument("--judge", type=Path, metavar="DIR", help="the judge (default: syncnet_judge of the weights)")
    machine.add_argument("--public_syncnet", type=Path, metavar="FILE", help="syncnet_v2.model: for its LSE-C, LSE-D")
    machine.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="settings (%(default)s)")
    machine.add_argument("--engine_weights", type=Path, metavar="DIR", help="of other engines (default: as configured)")
    machine.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    return parser.parse_args(arguments)


def given_jobs(args: argparse.Namespace) -> list[Job]:
    """One job for each result that has a real video of the same name."""
    pairs = pair_with_truth(args.results, args.ground_truth)[: args.clips]
    return [Job(clip, (GIVEN,), result=result, sheet=i < SHEET_CLIPS) for i, (result, clip) in enumerate(pairs)]


def own_jobs(args: argparse.Namespace, adapt: bool) -> list[Job]:
    """One job for each clip that this program is run on; both comparisons at once where both take the same folder."""
    modes: dict[Path, tuple[str, ...]] = {}
    for mode, folder in ((OWN, args.self_reenactment), (NEW, args.cross)):
        if folder is not None:
            modes[folder.resolve()] = (*modes.get(folder.resolve(), ()), mode)
    jobs = []
    for folder, chosen in modes.items():
        clips = find_clips(folder, args.clips)
        if args.in_step is not None:
            clips = in_step(clips, args.in_step, args.output / "in_step")
        speech = pair_with_speech(clips, args.seed) if NEW in chosen else {}
        adapted = longest(clips, args.adapt_clips or len(clips)) if adapt else []
        for i, clip in enumerate(clips):
            new, sheet = speech.get(clip.video.name), i < SHEET_CLIPS or clip in adapted
            jobs.append(Job(clip, chosen, speech=new, adapted=clip in adapted, sheet=sheet))
    return jobs


def check_request(args: argparse.Namespace) -> None:
    """Refuse a command line that asks for nothing, for both forms at once, or for numbers that cannot be.

    Raises:
        InputError: it does.
    """
    given, own = args.results or args.ground_truth, args.self_reenactment or args.cross or args.mouth
    if args.mouth is not None and (args.self_reenactment or args.cross or args.adapt):
        raise InputError("--mouth does not go with --self_reenactment, --cross or --adapt; run them apart.")
    if args.engines and not (args.self_reenactment or args.cross):
        raise InputError("--engines makes results of real videos: it needs --self_reenactment or --cross.")
    if args.portraits and not args.mouth:
        raise InputError("--portraits makes results of stills: it needs --mouth with a folder of real videos.")
    if bool(given) == bool(own) or bool(args.results) != bool(args.ground_truth):
        raise InputError("Give either --results with --ground_truth, or --self_reenactment and/or --cross, or --mouth.")
    if args.clips is not None and args.clips < 1:
        raise InputError(f"The number of clips must be 1 or more, not {args.clips}.")
    if args.adapt_clips is not None and args.adapt_clips < 1:
        raise InputError(f"The number of clips to adapt to must be 1 or more, not {args.adapt_clips}.")
    if args.workers < 1:
        raise InputError(f"The number of processes must be 1 or more, not {args.workers}.")
    if not args.seconds >= LEAST_S:
        raise InputError(f"The seconds of each clip must be {LEAST_S:g} or more, not {args.seconds:g}.")


def mouth_jobs(args: argparse.Namespace) -> list[MouthJob]:
    """One job for each clip whose mouth is measured."""
    if not args.mouth:
        pairs = pair_with_truth(args.results, args.ground_truth)[: args.clips]
        return [MouthJob(clip, result=result) for result, clip in pairs]
    clips = choose_clips([clip for folder in args.mouth for clip in find_clips(folder)], args.clips)
    if args.in_step is not None:
        clips = in_step(clips, args.in_step, args.output / "in_step")
    several = len({clip.person for clip in clips}) > 1
    speech = pair_with_speech(clips, args.seed) if several else {}
    return [MouthJob(clip, speech.get(clip.video.name)) for clip in clips]


def measure_mouths(args: argparse.Namespace, config: Config, command: str) -> None:
    """Measure mouths and write what the command line wants."""
    output = args.output if args.in_step is None else args.output / "in_step"  # other sounds give other results
    measured = measure_all(mouth_jobs(args), MouthSettings(config, output, args.seconds, args.portraits))
    print(mouth_text(measured))
    if args.json:
        write_text(args.json, mouth_json(measured))
    if args.report:
        write_text(args.report, mouth_html(measured, command))


def score_videos(args: argparse.Namespace, config: Config, command: str) -> None:
    """Score videos by all that is not the mouth alone, and write what the command line wants."""
    names = engine_names(args.engines or "", config)
    judge = args.judge or config.inference.weights_dir / config.size / "syncnet_judge"
    adapt = parse_seconds(args.adapt) if args.adapt else 0.0
    jobs = given_jobs(args) if args.results else own_jobs(args, adapt > 0)
    scored = score_all(jobs, Settings(config, args.output, judge, args.public_syncnet, adapt, names), args.workers)
    summary = summarise(scored)
    print(as_text(summary))
    if args.json:
        write_text(args.json, json.dumps(as_json(summary, scored), indent=1, ensure_ascii=False) + "\n")
    if args.report:
        write_text(args.report, as_html(summary, scored, command))


def write_text(target: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic_path(target) as path:
        path.write_text(text, encoding="utf-8")


def evaluate(arguments: list[str]) -> None:
    """Score what the command line asks for and write what it wants."""
    args = parse_arguments(arguments)
    check_packages()
    check_request(args)
    given = args.engine_weights
    config = load_config(
        args.config, [f"inference.engine_weights={json.dumps(str(given.resolve()))}"] if given is not None else []
    )
    command = shlex.join(["python", "evaluate.py", *arguments])
    (score_videos if args.mouth is None else measure_mouths)(args, config, command)


def main(arguments: list[str] | None = None) -> int:
    try:
        evaluate(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
