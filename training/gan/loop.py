"""The generator's training: phases in a run folder, samples, curve (docs/gan-training.md).

Every random choice is keyed by (seed, step), so a killed run resumes to the weights an uninterrupted one gives. (With
a time limit the length of a phase depends on the machine, and so do the weights.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ohlora.base.atomic import atomic_path, write_json
from ohlora.errors import InvalidInputError
from ohlora.training import checkpoints
from ohlora.training.gan.config import GanConfig, Phase, time_shares
from ohlora.training.gan.data import FolderSource, PortraitSource, Source, batch_indices, to_images, to_tensor
from ohlora.training.gan.fast import keep_freed_memory
from ohlora.training.gan.mapping_fit import readout_fit, teach
from ohlora.training.gan.quality import psnr
from ohlora.training.gan.steps import Batch, Steps
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.logs import append_row, read_rows, write_rows
from ohlora.training.loop.previews import draw_curve, sample_grid, write_preview
from ohlora.training.loop.run_folder import RunFolder
from ohlora.training.loop.steps import TrainingStoppedError, train_steps
from ohlora.training.loop.streams import normal

KIND = "ohlora-gan-1"  # of the states
TAUGHT = 40_000  # pictures whose numbers teach the mapping
SHOWN = 16  # pictures of a sample grid
W_AVG_SAMPLES = 10_000

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Watch:
    """How often a run writes things; none of it changes the weights.

    log_every: steps per row of curve.jsonl. stop_after: stop cleanly after so many steps of this call, 0 = never (used
    to test resuming).
    """

    log_every: int = 50
    checkpoint_minutes: float = 5.0
    sample_minutes: float = 5.0
    stop_after: int = 0


def make_source(config: GanConfig, data: list[Path], store: Path | None = None, *, timed: bool = False) -> Source:
    """The source a recipe asks for. Raises InvalidInputError when `data` does not fit it.

    timed: the run ends by time. Else no more portraits are painted than its phases show.
    """
    if config.source == "portraits":
        if data:
            raise InvalidInputError("this recipe renders its own pictures: leave DATA out, or use --recipe stylegan")
        shown = math.ceil(1000 * sum(phase.kimg for phase in config.phases))
        count = config.images if timed else min(config.images, shown)
        return PortraitSource(count, config.first_seed, store=store)
    if not data:
        raise InvalidInputError("this recipe needs a folder of pictures: ohlora train gan FOLDER --recipe stylegan")
    return FolderSource(data)


class Run:
    """One training in a run folder. See `run`."""

    def __init__(
        self, config: GanConfig, folder: RunFolder, source: Source, watch: Watch, minutes: float | None, report: Report
    ) -> None:
        self.config, self.folder, self.source, self.watch, self.report = config, folder, source, watch, report
        self.limit = None if minutes is None else minutes * 60.0
        self.shares = time_shares(config)
        self.device = folder.fabric.device
        self.steps = Steps(config, folder.fabric, source.latents)
        self.state: dict[str, Any] = {
            "phase": 0, "step": 0, "images": 0, "phase_step": 0, "phase_images": 0, "phase_seconds": 0.0,
            "since_growth": 0, "seconds": 0.0,
        }  # fmt: skip
        self.curve, self.generator_file = folder.out / "curve.jsonl", folder.out / "generator.safetensors"
        self._sums: dict[str, list[float]] = {}

    @property
    def phase(self) -> Phase:
        index: int = self.state["phase"]
        return self.config.phases[index]

    def train(self) -> dict[str, Any]:
        saved = self.folder.saved
        if saved is not None:
            self.state = saved["state"]
            self.steps.enter(min(self.state["phase"], len(self.config.phases) - 1), saved["nets"])
        if self.curve.is_file():  # rows after the state are written again
            rows = read_rows(self.curve) if saved is not None else []
            write_rows(self.curve, (row for row in rows if row.get("step", 0) <= self.state["step"]))
        self.source.prepare(
            self.folder.out / "pictures",
            self.config.resolution,
            lambda done, count: self.report({"event": "pictures", "done": done, "count": count}),
            content=self.folder.contents.digests.get("pictures"),
            renew=not self.folder.resume,
        )
        if saved is None:
            self.steps.enter(0)
            self._teach()
        if self.steps.readout is not None:
            with atomic_path(self.folder.out / "readout.npy") as temporary:
                np.save(temporary, self.steps.readout.cpu().numpy())  # the latents u of a face are w @ readout.T
            self.report({"event": "mapping", **readout_fit(self.steps.generator, self.steps.readout)})
        with self.folder.stop_requests():
            while self.state["phase"] < len(self.config.phases):
                if not self._phase():
                    self._samples()
                    return {**self.summary(), "stopped": True}
                self._next_phase()
        self.save()
        draw_curve(read_rows(self.curve), self.folder.out / "curve.png")
        return {**self.summary(), "stopped": False}

    def _teach(self) -> None:
        """Fit a fresh mapping to what the source knows of its pictures (`mapping_fit.teach`)."""
        config, readout, generator = self.config, self.steps.readout, self.steps.generator
        if not config.teach_steps or config.start_from or readout is None:
            return
        indices = np.arange(min(TAUGHT, self.source.count))
        features, z = self.source.features(indices), self.source.z(indices)
        if features is None or z is None:  # refused by `run`
            return
        known = (torch.from_numpy(values).to(self.device) for values in (z, features))
        fit = teach(generator.mapping, readout, *known, steps=config.teach_steps, seed=config.seed)
        self.steps.smooth.mapping.load_state_dict(generator.mapping.state_dict())
        self.report({"event": "taught", **fit})

    def _phase(self) -> bool:
        """Train the current phase to its end; False when stopped before."""
        state, resolution = self.state, self.phase.resolution
        # Latents of the sample grid, always the same, and their targets where there are any.
        z, images = self.source.unseen(SHOWN, resolution)
        paired = z is not None and len(z) > 0
        self.shown = images if paired else None
        drawn = z if z is not None and paired else normal((self.config.seed, 3), SHOWN, self.config.z_size)
        self.shown_z = torch.from_numpy(drawn).to(self.device)
        self.report({"event": "phase", "phase": state["phase"] + 1, "of": len(self.config.phases),
                     "resolution": resolution, "step": state["step"]})  # fmt: skip
        self.batch()  # the source scales all pictures to this size once: not on the clock
        self._fading: bool | None = None
        self._sampled = self._last = time.monotonic()
        self._mark = (self._last, state["images"])
        try:
            return train_steps(self.folder, lambda: self.progress() >= 1.0, self._step, self.save)
        except TrainingStoppedError as error:
            raise self._not_finite(error) from error

    def _step(self) -> None:
        state, phase, progress, watch = self.state, self.phase, self.progress(), self.watch
        parts = self.steps.step(state["step"], state["phase_step"], progress, self.batch(), state["since_growth"])
        now, fading = time.monotonic(), self.steps.lod(progress) > 0
        # The first step of a kind compiles its graphs: not on the clock.
        warming, self._fading = fading != self._fading, fading
        for key, amount in (
            ("step", 1), ("phase_step", 1), ("images", phase.batch_size), ("phase_images", phase.batch_size),
            ("since_growth", phase.batch_size), ("seconds", now - self._last),
            ("phase_seconds", 0.0 if warming else now - self._last),
        ):  # fmt: skip
            state[key] += amount
        self._last = now
        self._log(parts, progress)
        if watch.sample_minutes and now - self._sampled > watch.sample_minutes * 60:
            self._samples()
            self._sampled = time.monotonic()

    def progress(self) -> float:
        """How far the current phase is, 0 .. 1: by pictures, or by time when there is a limit."""
        state = self.state
        if self.limit is None:
            return float(state["phase_images"] / (self.phase.kimg * 1000))
        return float(state["phase_seconds"] / (self.limit * self.shares[state["phase"]]))

    def _next_phase(self) -> None:
        index, phases = self.state["phase"], self.config.phases
        self._samples()
        self.save_generator(self.folder.out / f"phase-{index + 1}-{phases[index].resolution}.safetensors")
        self.state.update(phase=index + 1, phase_step=0, phase_images=0, phase_seconds=0.0)
        if index + 1 < len(phases):
            if phases[index + 1].resolution != phases[index].resolution:
                self.state["since_growth"] = 0
            self.steps.enter(index + 1)
            self.save()

    def batch(self) -> Batch:
        """The pictures and latents of the current step, from (seed, step) alone."""
        state, size, seed = self.state, self.phase.batch_size, self.config.seed
        # Rounds start anew with each phase: the batch size may change.
        indices = batch_indices(self.source.count, size, state["phase_step"], seed * 131 + state["phase"])
        real = to_tensor(self.source.images(indices, self.phase.resolution), self.device)
        z = self.source.z(indices)
        drawn = normal((seed, 2, state["step"]), size, self.config.z_size) if z is None else z
        return Batch(real, torch.from_numpy(drawn).to(self.device), z is not None)

    # Files

    def save(self) -> None:
        """Write a state and the averaged generator."""
        self.folder.save({"state": self.state, "nets": self.steps.state()}, self.state["step"])
        self.save_generator(self.generator_file)

    @torch.no_grad()
    def save_generator(self, path: Path) -> None:
        """The averaged generator, at this phase's resolution, with w_avg = the mean w of W_AVG_SAMPLES latents."""
        smooth = self.steps.smooth
        z = torch.from_numpy(normal((self.config.seed, 4), W_AVG_SAMPLES, self.config.z_size)).to(self.device)
        sums = torch.stack([smooth.mapping(part).sum(0) for part in torch.split(z, 2000)])
        smooth.w_avg.copy_(sums.sum(0) / W_AVG_SAMPLES)
        checkpoints.save(smooth, path, "stylegan")

    def _log(self, parts: dict[str, torch.Tensor], progress: float) -> None:
        for name, value in parts.items():
            self._sums.setdefault(name, []).append(float(value))
        if self.state["step"] % self.watch.log_every:
            return
        now, images = time.monotonic(), self.state["images"]
        row: dict[str, Any] = {
            "step": self.state["step"], "images": images, "phase": self.state["phase"] + 1,
            "resolution": self.phase.resolution, "progress": round(progress, 4),
            **{name: round(float(np.mean(values)), 6) for name, values in self._sums.items()},
            "images_per_second": round((images - self._mark[1]) / max(now - self._mark[0], 1e-9), 2),
            "seconds": round(self.state["seconds"], 1),
        }  # fmt: skip
        self._sums, self._mark = {}, (now, images)
        append_row(self.curve, row)
        self.report({"event": "row", **row})

    @torch.no_grad()
    def _samples(self) -> None:
        state, out = self.state, self.folder.out
        generated = to_images(self.steps.smooth(self.shown_z, lod=0.0))
        name = f"{state['step']:08d}-{self.phase.resolution}"
        write_preview(out / "samples", name, sample_grid(generated, self.shown))
        if self.shown is not None:
            figure = psnr(generated, self.shown)
            append_row(self.curve, {"step": state["step"], "images": state["images"], "unseen_psnr": figure})
        draw_curve(read_rows(self.curve), out / "curve.png")

    def _not_finite(self, error: TrainingStoppedError) -> TrainingStoppedError:
        """Keep the weights, which the failed step has not touched, and say so."""
        if all(bool(torch.isfinite(p).all()) for p in self.steps.generator.parameters()):
            self.save_generator(self.generator_file)
        last = [path.name for path in self.folder.states()[-1:]]
        kept = " and ".join([str(self.generator_file), *last])
        return TrainingStoppedError(
            f"{error}: --start-from {self.generator_file}, or --precision fp32. The last good weights are in {kept}"
        )

    def summary(self) -> dict[str, Any]:
        fit = readout_fit(self.steps.smooth, self.steps.readout) if self.steps.readout is not None else None
        return {
            "generator": str(self.generator_file),
            "resolution": self.steps.phase.resolution,
            "steps": self.state["step"],
            "images": self.state["images"],
            "train_seconds": round(self.state["seconds"], 1),
            "mapping": fit,
        }


def run(
    config: GanConfig,
    out: Path,
    source: Source,
    *,
    resume: bool = True,
    time_limit: float | None = None,
    accelerator: str = "auto",
    watch: Watch | None = None,
    report: Report = lambda row: None,
) -> dict[str, Any]:
    """Train a generator in `out`; the same call resumes where a stopped one ended. Returns a summary.

    Writes generator.safetensors (averaged weights, usable at any time), phase-N-R.safetensors at the end of each
    phase, checkpoint-*.pt (the last two), curve.jsonl, curve.png, samples/, readout.npy, summary.json and, unless the
    source keeps them elsewhere, pictures/. SIGINT and SIGTERM end it after the step under way, saved ("stopped": True).

    time_limit: minutes for all phases together, shared out by `time_shares`; rendering and compiling come on top.
    report: gets one dict per event ("pictures", "taught", "mapping", "phase", "row").
    Raises InvalidInputError for another run's folder, TrainingStoppedError for a loss that is not finite, OutputError.
    """
    if time_limit is not None and time_limit <= 0:
        raise InvalidInputError(f"the time limit must be more than 0 minutes, got {time_limit:g}")
    if config.start_from and not Path(config.start_from).is_file():
        raise InvalidInputError(f"no generator {config.start_from} to start from")
    if config.teach_steps and not config.start_from and source.features(np.arange(1)) is None:
        raise InvalidInputError("teach_steps needs a source that knows numbers about its pictures: set it to 0")
    watch = watch or Watch()
    keep_freed_memory()
    folder = RunFolder(
        out,
        {"config": config.identity(), "source": source.identity()},
        make_fabric(accelerator, precision=config.precision),
        reads={"pictures": source.files, "start generator": [Path(config.start_from)] if config.start_from else []},
        resume=resume,
        stop_after=watch.stop_after,
        checkpoint_minutes=watch.checkpoint_minutes,
        kind=KIND,
    )
    training = Run(config, folder, source, watch, time_limit, report)
    with folder:
        result = training.train()
        write_json(out / "summary.json", result)
    return result
