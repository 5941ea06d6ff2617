"""The generator's training loop: phases, checkpoints, resuming, stopping (docs/gan-training.md).

Every random choice is keyed by (seed, step), so a killed run resumes to the weights an uninterrupted one gives. (With
a time limit the length of a phase depends on the machine, and so do the weights.)
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray

from ohlora.base.atomic import atomic_path, make_folder, remove_leftovers, write_bytes
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.training import checkpoints
from ohlora.training.gan.config import GanConfig, Phase, time_shares
from ohlora.training.gan.data import FolderSource, PortraitSource, Source, batch_indices, to_images, to_tensor
from ohlora.training.gan.fast import keep_freed_memory
from ohlora.training.gan.mapping_fit import readout_fit, teach
from ohlora.training.gan.monitor import append_row, draw_curve, keep_rows, read_rows, sample_grid, write_samples
from ohlora.training.gan.steps import Batch, NotFiniteError, Steps
from ohlora.training.loop.precision import lightning_precision
from ohlora.training.nets.stylegan import Generator

FORMAT = "ohlora-gan-1"
KEPT = 2  # checkpoints
TAUGHT = 40_000  # pictures whose numbers teach the mapping
SHOWN = 16  # pictures of a sample grid
W_AVG_SAMPLES = 10_000


@dataclass(frozen=True)
class Watch:
    """How often a run writes things; none of it changes the weights.

    log_every: steps per row of curve.jsonl; checkpoint_steps: also save every so many steps, 0 = by time only;
    stop_after: stop cleanly after so many steps of this call, 0 = never (used to test resuming).
    """

    log_every: int = 50
    checkpoint_minutes: float = 5.0
    checkpoint_steps: int = 0
    sample_minutes: float = 5.0
    stop_after: int = 0


class TrainingStoppedError(OhloraError):
    """Training met a loss or gradient that is not finite."""


def make_source(config: GanConfig, data: list[Path], store: Path | None = None) -> Source:
    """The source a recipe asks for. Raises InvalidInputError when `data` does not fit it."""
    if config.source == "portraits":
        if data:
            raise InvalidInputError("this recipe renders its own pictures: leave DATA out, or use --recipe stylegan")
        return PortraitSource(config.images, config.first_seed, store=store)
    if not data:
        raise InvalidInputError("this recipe needs a folder of pictures: ohlora train gan FOLDER --recipe stylegan")
    return FolderSource(data)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, so that the step under way is finished and saved."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(name, lambda *_: event.set()) for name in names]
    try:
        yield event
    finally:
        for name, handler in zip(names, before, strict=True):
            signal.signal(name, handler)


class Run:
    """One training run in folder `out`. See `run`."""

    def __init__(
        self,
        config: GanConfig,
        out: Path,
        source: Source,
        watch: Watch,
        time_limit: float | None,
        accelerator: str,
        report: Callable[[dict[str, Any]], None],
    ) -> None:
        self.config, self.out, self.source, self.watch, self.report = config, out, source, watch, report
        self.limit = None if time_limit is None else time_limit * 60.0
        self.shares = time_shares(config)
        self.fabric = Fabric(accelerator=accelerator, devices=1, precision=lightning_precision(config.precision))
        self.steps = Steps(config, self.fabric, source.latents)
        self.state: dict[str, Any] = {
            "phase": 0, "step": 0, "images": 0, "phase_step": 0, "phase_images": 0, "phase_seconds": 0.0,
            "since_growth": 0, "seconds": 0.0,
        }  # fmt: skip
        self.curve = out / "curve.jsonl"
        self._sums: dict[str, list[float]] = {}
        self._mark = (0.0, 0)

    # Files

    def identity(self) -> str:
        return json.dumps({"config": self.config.identity(), "source": self.source.identity()}, sort_keys=True)

    def checkpoints(self) -> list[Path]:
        """Resume states, oldest first."""
        return sorted(self.out.glob("checkpoint-*.pt"))

    def save(self) -> None:
        """Write a resume state and the averaged generator; drop all but the last KEPT states."""
        path = self.out / f"checkpoint-{self.state['step']:08d}.pt"
        content = {"format": FORMAT, "identity": self._identity, "state": self.state, "nets": self.steps.state()}
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
        self.save_generator(self.out / "generator.safetensors")
        for old in self.checkpoints()[:-KEPT]:
            old.unlink(missing_ok=True)

    def save_generator(self, path: Path) -> None:
        """The averaged generator, at this phase's resolution, with w_avg = the mean w of W_AVG_SAMPLES latents."""
        set_w_avg(self.steps.smooth, self.config.seed)
        checkpoints.save(self.steps.smooth, path, "stylegan")

    def load(self) -> bool:
        """Go on from the newest resume state; False when there is none."""
        found = self.checkpoints()
        if not found:
            return False
        path = found[-1]
        try:
            content = torch.load(path, weights_only=True, map_location=self.fabric.device)
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}")
        except Exception as error:  # the unpickler raises whatever the bytes make it raise
            raise InvalidInputError(
                f"cannot resume from {path}: {str(error).splitlines()[0][:200]}; delete it to go on from the one "
                "before, or use --restart"
            ) from error
        if other := _difference(content["identity"], self._identity):
            raise InvalidInputError(f"{self.out} holds a run {other}: choose another --out, or --restart")
        self.state = content["state"]
        if self.state["phase"] < len(self.config.phases):
            self.steps.enter(self.state["phase"], content["nets"])
        else:
            self.steps.enter(len(self.config.phases) - 1, content["nets"])
        return True

    # Training

    def train(self, resume: bool) -> dict[str, Any]:
        make_folder(self.out)
        remove_leftovers(self.out)
        self._identity = self.identity()
        if not resume:
            for old in self.checkpoints():
                old.unlink()
        resumed = self.load()
        keep_rows(self.curve, self.state["step"] if resumed else -1)
        self.source.prepare(self.out / "pictures", self.config.resolution, self._prepared)
        if not resumed:
            self.steps.enter(0)
            self._teach()
        if self.steps.readout is not None:
            write_readout(self.out / "readout.npy", self.steps.readout)
            self.report({"event": "mapping", **readout_fit(self.steps.generator, self.steps.readout)})
        started = self.state["step"]
        with _stop_requests() as stop:
            while self.state["phase"] < len(self.config.phases):
                if not self._phase(stop, started):
                    self.save()
                    self._samples()
                    return {**self.summary(), "stopped": True}
                self._next_phase()
        self.save()
        draw_curve(read_rows(self.curve), self.out / "curve.png")
        return {**self.summary(), "stopped": False}

    def _teach(self) -> None:
        """Fit a fresh mapping to what the source knows of its pictures (`mapping_fit.teach`)."""
        config, readout = self.config, self.steps.readout
        if not config.teach_steps or config.start_from or readout is None:
            return
        indices = np.arange(min(TAUGHT, self.source.count))
        features, z = self.source.features(indices), self.source.z(indices)
        assert features is not None  # `run` saw to it
        assert z is not None
        generator = self.steps.generator
        device = self.fabric.device
        fit = teach(
            generator.mapping,
            readout,
            torch.from_numpy(z).to(device),
            torch.from_numpy(features).to(device),
            steps=config.teach_steps,
            seed=config.seed,
        )
        self.steps.smooth.mapping.load_state_dict(generator.mapping.state_dict())
        self.report({"event": "taught", **fit})

    def _prepared(self, done: int, count: int) -> None:
        self.report({"event": "pictures", "done": done, "count": count})

    def _phase(self, stop: threading.Event, started: int) -> bool:
        """Train the current phase to its end; False when stopped before."""
        phase: Phase = self.config.phases[self.state["phase"]]
        self.shown_z, self.shown = self._shown(phase.resolution)
        self.report({"event": "phase", "phase": self.state["phase"] + 1, "of": len(self.config.phases),
                     "resolution": phase.resolution, "step": self.state["step"]})  # fmt: skip
        state, watch = self.state, self.watch
        self.batch(phase)  # the source scales all pictures to this size once: not on the clock
        mode: bool | None = None
        saved = sampled = last = time.monotonic()
        self._mark = (last, state["images"])
        while (progress := self.progress(phase)) < 1.0:
            if stop.is_set() or (watch.stop_after and state["step"] - started >= watch.stop_after):
                return False
            try:
                parts = self.steps.step(
                    state["step"], state["phase_step"], progress, self.batch(phase), state["since_growth"]
                )
            except NotFiniteError as error:
                raise self._not_finite(error) from error
            now = time.monotonic()
            fading = self.steps.lod(progress) > 0
            warming, mode = fading != mode, fading  # the first step of a kind compiles its graphs: not on the clock
            for key, amount in (
                ("step", 1), ("phase_step", 1), ("images", phase.batch_size), ("phase_images", phase.batch_size),
                ("since_growth", phase.batch_size), ("seconds", now - last),
                ("phase_seconds", 0.0 if warming else now - last),
            ):  # fmt: skip
                state[key] += amount
            last = now
            self._log(parts, progress)
            if now - sampled > watch.sample_minutes * 60 and watch.sample_minutes:
                self._samples()
                sampled = time.monotonic()
            if (watch.checkpoint_steps and state["step"] % watch.checkpoint_steps == 0) or (
                watch.checkpoint_minutes and now - saved > watch.checkpoint_minutes * 60
            ):
                self.save()
                saved = time.monotonic()
        return True

    def progress(self, phase: Phase) -> float:
        """How far the current phase is, 0 .. 1: by pictures, or by time when there is a limit."""
        if self.limit is None:
            return self.state["phase_images"] / (phase.kimg * 1000)
        return self.state["phase_seconds"] / (self.limit * self.shares[self.state["phase"]])

    def _next_phase(self) -> None:
        index = self.state["phase"]
        self._samples()
        self.save_generator(self.out / f"phase-{index + 1}-{self.config.phases[index].resolution}.safetensors")
        self.state.update(phase=index + 1, phase_step=0, phase_images=0, phase_seconds=0.0)
        if index + 1 < len(self.config.phases):
            if self.config.phases[index + 1].resolution != self.config.phases[index].resolution:
                self.state["since_growth"] = 0
            self.steps.enter(index + 1)
            self.save()

    def batch(self, phase: Phase) -> Batch:
        """The pictures and latents of the current step, from (seed, step) alone."""
        step, size, seed = self.state["step"], phase.batch_size, self.config.seed
        # Rounds start anew with each phase: the batch size may change.
        indices = batch_indices(self.source.count, size, self.state["phase_step"], seed * 131 + self.state["phase"])
        real = to_tensor(self.source.images(indices, phase.resolution), self.fabric.device)
        z = self.source.z(indices)
        drawn = normal((seed, 2, step), size, self.config.z_size) if z is None else z
        return Batch(real, torch.from_numpy(drawn).to(self.fabric.device), z is not None)

    # Watching

    def _log(self, parts: dict[str, torch.Tensor], progress: float) -> None:
        for name, value in parts.items():
            self._sums.setdefault(name, []).append(float(value))
        if self.state["step"] % self.watch.log_every:
            return
        now, images = time.monotonic(), self.state["images"]
        row: dict[str, Any] = {
            "step": self.state["step"], "images": images, "phase": self.state["phase"] + 1,
            "resolution": self.steps.phase.resolution, "progress": round(progress, 4),
            **{name: round(float(np.mean(values)), 6) for name, values in self._sums.items()},
            "images_per_second": round((images - self._mark[1]) / max(now - self._mark[0], 1e-9), 2),
            "seconds": round(self.state["seconds"], 1),
        }  # fmt: skip
        self._sums, self._mark = {}, (now, images)
        append_row(self.curve, row)
        self.report({"event": "row", **row})

    def _shown(self, resolution: int) -> tuple[torch.Tensor, Any]:
        """Latents of the sample grid, always the same, and their targets where there are any."""
        z, images = self.source.unseen(SHOWN, resolution)
        paired = z is not None and len(z) > 0
        if not paired:
            z = normal((self.config.seed, 3), SHOWN, self.config.z_size)
        return torch.from_numpy(z).to(self.fabric.device), images if paired else None

    @torch.no_grad()
    def _samples(self) -> None:
        generated = to_images(self.steps.smooth(self.shown_z, lod=0.0))
        write_samples(
            self.out / "samples", self.state["step"], self.steps.phase.resolution, sample_grid(generated, self.shown)
        )
        if self.shown is not None:
            error = np.mean((generated.astype(np.float64) - self.shown) ** 2, axis=(1, 2, 3))
            psnr = float(np.mean(10 * np.log10(255.0**2 / np.maximum(error, 1e-9))))
            append_row(self.curve, {"step": self.state["step"], "images": self.state["images"], "unseen_psnr": psnr})
        draw_curve(read_rows(self.curve), self.out / "curve.png")

    def _not_finite(self, error: NotFiniteError) -> TrainingStoppedError:
        """Keep the weights, which the failed step has not touched, and say so."""
        good = all(bool(torch.isfinite(p).all()) for p in self.steps.generator.parameters())
        if good:
            self.save_generator(self.out / "generator.safetensors")
        kept = self.out / "generator.safetensors"
        last = [path.name for path in self.checkpoints()[-1:]]
        return TrainingStoppedError(
            f"training stopped at step {self.state['step']}: {error}. The last good weights are in {kept}"
            f"{' and ' + last[0] if last else ''}. Go on with a smaller learning rate or --precision fp32: "
            f"another --out and --start-from {kept}"
        )

    def summary(self) -> dict[str, Any]:
        fit = readout_fit(self.steps.smooth, self.steps.readout) if self.steps.readout is not None else None
        return {
            "generator": str(self.out / "generator.safetensors"),
            "resolution": self.steps.phase.resolution,
            "steps": self.state["step"],
            "images": self.state["images"],
            "train_seconds": round(self.state["seconds"], 1),
            "mapping": fit,
        }


def _difference(old: str, new: str) -> str:
    """What differs between two identities, in words; empty when nothing does. A setting that the older version did not
    have yet is no difference.
    """
    for part in ("config", "source"):
        first, second = json.loads(old)[part], json.loads(new)[part]
        for key in second:
            if key in first and first[key] != second[key]:
                return f"with another {part} ({key} was {str(first[key])[:80]}, now {str(second[key])[:80]})"
    return ""


def normal(key: tuple[int, ...], count: int, size: int) -> NDArray[np.float32]:
    """Standard normal numbers [count, size] of a key."""
    return np.random.default_rng(key).standard_normal((count, size)).astype(np.float32)


def write_readout(path: Path, readout: torch.Tensor) -> None:
    """readout.npy float32 [latents, w_size]: the latents u of a face are w @ readout.T."""
    with atomic_path(path) as temporary:
        np.save(temporary, readout.cpu().numpy())


@torch.no_grad()
def set_w_avg(generator: Generator, seed: int, count: int = W_AVG_SAMPLES) -> None:
    """Set `w_avg` to the mean w of `count` random latents."""
    parts = torch.from_numpy(normal((seed, 4), count, generator.config.z_size)).to(generator.w_avg.device).split(2000)
    generator.w_avg.copy_(torch.stack([generator.mapping(part).sum(0) for part in parts]).sum(0) / count)


def run(
    config: GanConfig,
    out: Path,
    source: Source,
    *,
    resume: bool = True,
    time_limit: float | None = None,
    accelerator: str = "auto",
    watch: Watch | None = None,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Train a generator in `out`; the same call goes on where a stopped one ended. Returns a summary.

    Writes generator.safetensors (averaged weights, usable at any time), phase-N-R.safetensors at the end of each
    phase, checkpoint-*.pt (the last two), curve.jsonl, curve.png, samples/, readout.npy and, unless the source keeps
    them elsewhere, pictures/. SIGINT and SIGTERM end it after the step under way, saved ("stopped": True).

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
    keep_freed_memory()
    result = Run(config, out, source, watch or Watch(), time_limit, accelerator, report).train(resume)
    write_bytes(out / "summary.json", (json.dumps(result, indent=1) + "\n").encode())
    return result
