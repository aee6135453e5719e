"""Trains one stage: `python trainer.py --config model_config.yaml --stage autoencoder`.

The same command again goes on exactly where the last one stopped. Results are under `<output>/<size>/<stage>/`:
export/ (best averaged weights: config.json + safetensors), checkpoint.pt, history.jsonl, logs/ (TensorBoard).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

import utils  # noqa: F401, I001 - before any library: nothing phones home
from models.checkpoint import load_checked
from training.common import Losses, Stage
from training.stages import STAGES, make_stage
from utils.config import Config, load_config
from utils.helpers import InputError, atomic_path, resolve_device, seed_everything


class Trainer:
    """Runs a stage: steps, averages, validates, saves, resumes.

    Args:
        config: the whole configuration.
        stage: a stage that is not built yet.
        output: folder of all runs.
        device: where to train; more processes are taken from `accelerate launch` or `torchrun`.
        init: folder of exported weights to start from, when there is no checkpoint yet.
    """

    def __init__(
        self, config: Config, stage: Stage, output: Path, device: torch.device, init: Path | None = None
    ) -> None:
        self.config, self.common = config, config.training.common
        self.settings = getattr(config.training, stage.name)
        precision = "bf16" if self.settings.precision == "bf16" else "no"
        self.accelerator = Accelerator(mixed_precision=precision, cpu=device.type == "cpu")
        self.run_dir = output / config.size / stage.name
        seed_everything(self.common.seed)
        self.stage = stage
        stage.build(config, self.accelerator.device)
        stage.run_dir = self.run_dir
        self.step, self.elapsed, self.best = 0, 0.0, -float("inf")
        self.stopping = False
        self.averages = {name: self._average(module) for name, module in stage.modules().items()}
        self.optimizer = self._make_optimizer()
        if self.checkpoint_path.is_file():
            self._resume()
        elif init is not None:
            self._initialise(init)

    @property
    def checkpoint_path(self) -> Path:
        return self.run_dir / "checkpoint.pt"

    def run(self) -> None:
        """Train until the steps or the minutes are used up, or a signal asks to stop."""
        if self.accelerator.is_main_process:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self.writer = SummaryWriter(self.run_dir / "logs", purge_step=self.step)
        self._started = time.monotonic() - self.elapsed
        with _signals(self._request_stop), tqdm(**self._bar()) as bar:
            self._loop(bar)
        if self.accelerator.is_main_process:
            self.writer.close()

    def _loop(self, bar: tqdm) -> None:
        saved = time.monotonic()
        batches = iter(self._loader()) if not self._done() else iter(())
        while not self._agree(self.stopping) and not self._done():
            losses = self._train_step(next(batches))
            self._report(bar, losses)
            if self.step % self.settings.validate_every == 0 and not self._done():
                self._validate()
            if self._agree(time.monotonic() - saved > self.common.checkpoint_every_s):
                self._save()
                saved = time.monotonic()
        if self._done():
            self._validate()
        self._save()

    def _train_step(self, batch: Any) -> Losses:
        self.stage.progress = self._progress()
        self._set_learning_rate()
        for module in self.stage.modules().values():
            module.train()
        batch = send_to_device(batch, self.accelerator.device)
        with self.accelerator.autocast():
            losses = self.stage.training_step(batch, self.step)
        total = sum(value for name, value in losses.items() if name.startswith("loss"))
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(total)
        self._combine_gradients()
        self.optimizer.step()
        for name, module in self.stage.modules().items():
            self.averages[name].update_parameters(module)
        self.step += 1
        self.elapsed = time.monotonic() - self._started
        return losses

    def _combine_gradients(self) -> None:
        """Average the gradients over the processes and limit their norm, each network by itself.

        The networks are called through many methods, not only `forward`, so that a DistributedDataParallel wrapper
        does not fit.
        """
        for module in self.stage.modules().values():
            trained = [p for p in module.parameters() if p.requires_grad]
            if self.accelerator.num_processes > 1:
                for p in trained:
                    p.grad = self.accelerator.reduce(
                        torch.zeros_like(p) if p.grad is None else p.grad, "mean"
                    )
            torch.nn.utils.clip_grad_norm_(trained, self.common.gradient_clip)

    def _validate(self) -> None:
        """Measure the averaged weights, note the numbers, export the weights if they are the best so far."""
        if not self.accelerator.is_main_process:
            return
        with _kept_random_state(), self._averaged_weights():
            with self.accelerator.autocast():
                metrics = self.stage.validate(self.step, self.writer)
            if metrics["score"] >= self.best:
                self.best = metrics["score"]
                self._export()
        for name, value in metrics.items():
            self.writer.add_scalar(f"validation/{name}", value, self.step)
        record = {"step": self.step, "minutes": round(self.elapsed / 60, 2), **metrics}
        with (self.run_dir / "history.jsonl").open("a", encoding="utf-8") as history:
            history.write(json.dumps(record) + "\n")
        tqdm.write(" ".join(f"{name} {value:.4g}" for name, value in record.items()))

    def _export(self) -> None:
        target, temporary = self.run_dir / "export", self.run_dir / "export.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        self.stage.finish()
        self.stage.export(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)

    def _save(self) -> None:
        """Write everything that an exact resume needs; the old checkpoint stays until the new one is complete."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "step": self.step,
            "elapsed": self.elapsed,
            "best": self.best,
            "modules": {name: module.state_dict() for name, module in self.stage.modules().items()},
            "averages": {name: average.state_dict() for name, average in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "random": _random_state(),
        }
        with atomic_path(self.checkpoint_path) as temporary:
            torch.save(state, temporary)

    def _resume(self) -> None:
        try:
            state = torch.load(self.checkpoint_path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"The checkpoint {self.checkpoint_path} is damaged: delete it or choose another --output."
            ) from error
        source = str(self.checkpoint_path)
        for name, module in self.stage.modules().items():
            load_checked(module, state["modules"][name], source)
            load_checked(self.averages[name], state["averages"][name], source)
        # The running command's learning rates and decays count, not those of the checkpoint.
        chosen = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, options in zip(self.optimizer.param_groups, chosen, strict=True):
            group.update(options)
        self.step, self.elapsed, self.best = state["step"], state["elapsed"], state["best"]
        _set_random_state(state["random"])

    def _initialise(self, directory: Path) -> None:
        self.stage.initialise(directory)
        for name, module in self.stage.modules().items():
            self.averages[name].module.load_state_dict(module.state_dict())

    def _average(self, module: torch.nn.Module) -> AveragedModel:
        average = AveragedModel(
            module, multi_avg_fn=_moving_average(self.settings.ema_decay), use_buffers=True
        )
        return average.requires_grad_(False)

    @contextlib.contextmanager
    def _averaged_weights(self) -> Iterator[None]:
        """Put the averaged weights into the networks, in evaluation mode, and the trained ones back afterwards."""
        modules = self.stage.modules()
        trained = {
            name: {key: value.clone() for key, value in module.state_dict().items()}
            for name, module in modules.items()
        }
        for name, module in modules.items():
            module.load_state_dict(self.averages[name].module.state_dict())
            module.eval()
        try:
            yield
        finally:
            for name, module in modules.items():
                module.load_state_dict(trained[name])

    def _make_optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        optimizer = torch.optim.AdamW(
            self.stage.parameter_groups(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        return optimizer

    def _set_learning_rate(self) -> None:
        """Rise over the warm-up, then fall along a cosine over the steps or the minutes, whichever end first."""
        warm = min(1.0, (self.step + 1) / max(1, self.settings.warmup_steps))
        factor = warm * 0.5 * (1 + np.cos(np.pi * self.stage.progress))
        for group in self.optimizer.param_groups:
            group["lr"] = float(group["peak_lr"] * factor)

    def _progress(self) -> float:
        minutes = self.settings.max_minutes
        by_time = self.elapsed / (60 * minutes) if minutes else 0.0
        return min(1.0, max(self.step / self.settings.max_steps, by_time))

    def _done(self) -> bool:
        return self._agree(self._progress() >= 1.0)

    def _agree(self, mine: bool) -> bool:
        """The main process decides for all: their clocks differ."""
        if self.accelerator.num_processes == 1:
            return mine
        flag = torch.tensor(int(mine and self.accelerator.is_main_process), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, "sum").item())

    def _loader(self) -> DataLoader:
        workers = self.common.num_workers
        return DataLoader(
            self.stage.train_batches(self.accelerator.process_index),
            batch_size=None,
            sampler=range(self.step, self.settings.max_steps),
            num_workers=workers,
            prefetch_factor=3 if workers else None,
            worker_init_fn=_start_worker,
            # By default a loader draws its seed from the random numbers of training, one more at every restart.
            generator=torch.Generator().manual_seed(self.common.seed),
        )

    def _report(self, bar: tqdm, losses: Losses) -> None:
        bar.update()
        due = self.step % self.common.log_every == 0 or self.step == 1
        if not due or not self.accelerator.is_main_process:
            return
        values = {name: float(value.detach()) for name, value in losses.items()}
        for name, value in values.items():
            self.writer.add_scalar(f"training/{name}", value, self.step)
        self.writer.add_scalar("training/learning_rate", self.optimizer.param_groups[0]["lr"], self.step)
        progress = max(self._progress(), 1e-6)
        left = self.elapsed * (1 - progress) / progress / 60
        bar.set_postfix(loss=f"{values['loss']:.4g}", minutes_left=f"{left:.0f}")

    def _bar(self) -> dict[str, Any]:
        return {
            "total": self.settings.max_steps,
            "initial": self.step,
            "desc": self.stage.name,
            "unit": "step",
            "disable": not self.accelerator.is_main_process,
            "mininterval": 1.0 if sys.stderr.isatty() else 30.0,
        }

    def _request_stop(self, *_: Any) -> None:
        self.stopping = True


def _moving_average(decay: float) -> Callable[[list, list, torch.Tensor], None]:
    """An exponential average that starts short, so that the random first weights are soon forgotten."""

    def update(averages: list[torch.Tensor], current: list[torch.Tensor], count: torch.Tensor) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + count.item()) / (10 + count.item())))(averages, current, count)

    return update


@contextlib.contextmanager
def _signals(handler: Any) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask for a stop after the step at hand."""
    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _start_worker(_: int) -> None:
    """Data processes leave signals to the training process and the cores to its matrix products.

    A signal to the whole process group would else kill them first, and training would end in an error without a
    checkpoint.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def _random_state() -> dict[str, Any]:
    numpy_state = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [numpy_state[0], torch.from_numpy(numpy_state[1].astype(np.int64)), *numpy_state[2:]],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextlib.contextmanager
def _kept_random_state() -> Iterator[None]:
    """Whatever happens inside does not change the random numbers that follow."""
    state = _random_state()
    try:
        yield
    finally:
        _set_random_state(state)


def describe(trainer: Trainer) -> str:
    """Every resolved choice, for --dry-run."""
    config, stage = trainer.config, trainer.stage.name
    sizes = {name: sum(p.numel() for p in m.parameters()) for name, m in trainer.stage.modules().items()}
    choices = {
        "stage": stage,
        "size": config.size,
        "device": str(trainer.accelerator.device),
        "processes": trainer.accelerator.num_processes,
        "run folder": str(trainer.run_dir),
        "starts at step": trainer.step,
        "parameters": sizes,
        "model": config.model.model_dump(mode="json"),
        "data": config.data.model_dump(mode="json"),
        "training.common": trainer.common.model_dump(mode="json"),
        f"training.{stage}": trainer.settings.model_dump(mode="json"),
    }
    return json.dumps(choices, indent=2)


def stage_overrides(stage: str, overrides: Sequence[str]) -> list[str]:
    """`training.batch_size=8` is short for `training.<stage>.batch_size=8`."""
    return [re.sub(r"^training\.(\w+=)", rf"training.{stage}.\1", text) for text in overrides]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train one stage. The same command again resumes.")
    parser.add_argument("--config", type=Path, default=Path("model_config.yaml"), help="configuration file")
    parser.add_argument("--stage", choices=STAGES, required=True, help="what to train")
    parser.add_argument(
        "--size", choices=("debug", "lite", "base"), help="model size (default: the config's)"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs"), help="folder of all runs (default: runs)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--init", type=Path, metavar="DIR", help="start from these exported weights")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="replace a value of the configuration; training.KEY means this stage's; may be repeated",
    )
    parser.add_argument("--dry-run", action="store_true", help="print every resolved choice and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point. Returns 0, or 2 when the input cannot be used."""
    options = parse_arguments(arguments)
    size = [f"size={options.size}"] if options.size else []
    try:
        config = load_config(options.config, [*size, *stage_overrides(options.stage, options.overrides)])
        device = resolve_device(options.device)
        trainer = Trainer(config, make_stage(options.stage), options.output, device, options.init)
        if options.dry_run:
            print(describe(trainer))
        else:
            trainer.run()
    except InputError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
