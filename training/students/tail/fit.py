"""A tail learns the network's own images: mean squared error on crops, few faces, since its styles are not fitted."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ohlora.base.atomic import explain_os_error, lock_file, make_folder
from ohlora.errors import OhloraError
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.mobilestylegan_tail import Tail
from ohlora.training.students.tail.recipe import TailRecipe

Progress = Callable[[str, int, int], None]  # what is done, how many, of how many
BETAS = (0.9, 0.99)
HELD_OUT_PSI = (0.7, 1.0)  # of the first and of the second half
LOSS_EVERY = 50  # steps between two figures of the log


@dataclass(frozen=True)
class Examples:
    """Of the whole network: features float16 [N,C,R,R] and images float16 [N,3,2R,2R], on the disk; wp [N,layers,W]."""

    features: NDArray[np.float16]
    targets: NDArray[np.float16]
    wp: Tensor

    def __len__(self) -> int:
        return len(self.wp)


@dataclass(frozen=True)
class FittedTail:
    """figures: PSNR in dB of the held-out faces before and after, and what it took."""

    tail: Tail
    figures: dict[str, Any]


def fit_tail(
    generator: MobileStyleGAN, recipe: TailRecipe, folder: Path, *, progress: Progress = lambda what, done, total: None
) -> FittedTail:
    """Fit a tail to `generator`, whose images have their full size; everything that is drawn comes from the seed.

    folder: for the examples, about 9 MB a face at 128 feature pixels; they are deleted at the end.
    Raises OhloraError when the held-out PSNR stays below the recipe's floor, or the loss is not a number.
    """
    began = time.process_time()
    with _one_thread(), torch.random.fork_rng(devices=[]):
        tail = Tail.started(generator.synthesis, recipe.cut)
        with _examples(generator, recipe, folder, progress) as (training, held_out):
            before = held_out_psnr(tail, held_out)
            losses = _train(tail, training, recipe, progress)
            after = held_out_psnr(tail.eval(), held_out)
    figures: dict[str, Any] = {
        "size": recipe.size,
        "exact": False,
        "psnr_db": float(np.mean(after)),
        "psnr_min_db": float(np.min(after)),
        "psnr_start_db": float(np.mean(before)),
        "faces": recipe.faces,
        "held_out": recipe.held_out,
        "steps": recipe.steps,
        "seed": recipe.seed,
        "losses": losses,
        "cpu_seconds": time.process_time() - began,
    }
    half = recipe.held_out // 2
    for psi, values in zip(HELD_OUT_PSI, (after[:half], after[half:]), strict=True):
        figures[f"psnr_psi{psi:g}_db"] = float(np.mean(values))
    if not figures["psnr_db"] >= recipe.floor:
        raise OhloraError(
            f"the tail for {recipe.size} pixels is {figures['psnr_db']:.1f} dB from the network's images, allowed are "
            f"{recipe.floor:g} dB or more: nothing was installed; give more --faces or --steps"
        )
    return FittedTail(tail, figures)


@torch.no_grad()
def held_out_psnr(tail: Tail, examples: Examples) -> NDArray[np.float64]:
    """dB of each face: clipped images, values -1 to 1."""
    values = []
    for i in range(len(examples)):
        features = torch.from_numpy(np.asarray(examples.features[i : i + 1], np.float32))
        made = tail(features, examples.wp[i : i + 1])[0].clamp(-1, 1).numpy()
        error = np.mean((made - np.asarray(examples.targets[i], np.float32)) ** 2, dtype=np.float64)
        values.append(10 * math.log10(4 / max(float(error), 1e-12)))
    return np.array(values)


@contextlib.contextmanager
def _examples(
    generator: MobileStyleGAN, recipe: TailRecipe, folder: Path, progress: Progress
) -> Iterator[tuple[Examples, Examples]]:
    stream = np.random.RandomState(recipe.seed)
    z = stream.randn(recipe.faces, generator.config.z_size)
    psi = stream.uniform(*recipe.psi, size=recipe.faces)
    others = np.random.RandomState(recipe.seed + 1).randn(recipe.held_out, generator.config.z_size)
    half = recipe.held_out // 2
    psis = [*psi, *[HELD_OUT_PSI[0]] * half, *[HELD_OUT_PSI[1]] * (recipe.held_out - half)]
    count, cut = len(psis), recipe.cut
    channels = next(b.outputs for b in generator.config.architecture.blocks if b.resolution == cut)
    files = [folder / "features.f16", folder / "targets.f16"]
    shapes = ((count, channels, cut, cut), (count, 3, 2 * cut, 2 * cut))
    try:
        arrays = [_on_disk(file, shape) for file, shape in zip(files, shapes, strict=True)]
        wp = []
        for i, row in enumerate(np.concatenate([z, others]).astype(np.float32)):
            latent, features, target = _example(generator, torch.from_numpy(row[None]), float(psis[i]), recipe)
            wp.append(latent)
            arrays[0][i], arrays[1][i] = features.half().numpy(), target.half().numpy()
            progress("faces", i + 1, count)
        latents, first = torch.cat(wp), recipe.faces
        yield (
            Examples(arrays[0][:first], arrays[1][:first], latents[:first]),
            Examples(arrays[0][first:], arrays[1][first:], latents[first:]),
        )
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _on_disk(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """An empty array in a file that has its full size already: a page that finds no room later would end the process.

    Raises OutputError when there is no room.
    """
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, 2 * math.prod(shape))
        return np.memmap(path, np.float16, "r+" if path.stat().st_size else "w+", shape=shape)
    except OSError as error:
        raise explain_os_error(path, error) from error


@contextlib.contextmanager
def examples_folder(parent: Path) -> Iterator[Path]:
    """A folder for `fit_tail` in `parent`, gone at the end; what a killed process left there goes first.

    Raises InvalidInputError while another process has one.
    """
    make_folder(parent)
    with lock_file(parent / ".tail-lock", parent, "wait for it"):
        for leftover in parent.glob(".tail-examples-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".tail-examples-", dir=parent) as folder:
            yield Path(folder)


@torch.no_grad()
def _example(generator: MobileStyleGAN, z: Tensor, psi: float, recipe: TailRecipe) -> tuple[Tensor, Tensor, Tensor]:
    """wp [1,layers,W], features [C,R,R] and image [3,2R,2R] of one face."""
    synthesis = generator.synthesis
    wp = generator.truncate(generator.mapping(z), psi).contiguous()
    kept: list[Tensor] = []
    block = synthesis.get_submodule(f"block{recipe.cut}")
    handle = block.register_forward_hook(lambda module, inputs, output: kept.append(output))
    try:
        image = synthesis(wp).clamp(-1, 1)
    finally:
        handle.remove()
    return wp, kept[0][0], F.avg_pool2d(image, image.shape[-1] // recipe.size)[0]


def _train(tail: Tail, examples: Examples, recipe: TailRecipe, progress: Progress) -> list[float]:
    parameters = [parameter for _, parameter in tail.fitted()]
    for parameter in tail.parameters():
        parameter.requires_grad_(False)
    groups = []
    for parameter in parameters:
        rate = recipe.rate * float(parameter.detach().square().mean().sqrt())
        groups.append({"params": [parameter.requires_grad_()], "lr": rate})
    optimizer = torch.optim.Adam(groups, betas=BETAS)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, recipe))
    stream = np.random.Generator(np.random.Philox(key=recipe.seed))
    crop = min(recipe.crop, recipe.cut)
    losses, log = [], []
    for step in range(recipe.steps):
        faces = stream.integers(len(examples), size=recipe.batch)
        # Corners drawn from beyond the border are on it: few crops would be there otherwise.
        drawn = stream.integers(-recipe.reach, recipe.cut - crop + 1 + recipe.reach, size=(recipe.batch, 2))
        corners = drawn.clip(0, recipe.cut - crop)
        features, targets = _crops(examples, faces, corners, crop)
        made = tail(features, examples.wp[faces], corners)
        counts = counted_pixels(corners, crop, recipe)
        loss = ((made - targets).square() * counts).sum() / (made.shape[1] * counts.sum())
        if not torch.isfinite(loss):
            raise OhloraError(
                f"the loss is not a number at step {step + 1}: nothing was installed; give a smaller --rate"
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % LOSS_EVERY == 0 or step + 1 == recipe.steps:
            log.append(float(np.mean(losses)))
            losses.clear()
        progress("steps", step + 1, recipe.steps)
    return log


def counted_pixels(corners: NDArray[np.int64], crop: int, recipe: TailRecipe) -> Tensor:
    """[N,1,2 crop,2 crop], 1 where the loss counts: not near a crop's side, unless the image ends there as well."""
    last = recipe.cut - crop
    counts = torch.zeros(len(corners), 1, 2 * crop, 2 * crop)
    for row, corner in zip(counts, corners, strict=True):
        y, x = (
            slice(0 if at == 0 else recipe.margin, 2 * crop - (0 if at == last else recipe.margin)) for at in corner
        )
        row[:, y, x] = 1.0
    return counts


def _crops(
    examples: Examples, faces: NDArray[np.int64], corners: NDArray[np.int64], crop: int
) -> tuple[Tensor, Tensor]:
    features, targets = [], []
    for face, (y, x) in zip(faces, corners, strict=True):
        features.append(examples.features[face, :, y : y + crop, x : x + crop])
        targets.append(examples.targets[face, :, 2 * y : 2 * (y + crop), 2 * x : 2 * (x + crop)])
    stacked = (torch.from_numpy(np.stack(arrays).astype(np.float32)) for arrays in (features, targets))
    return next(stacked), next(stacked)


def rate_factor(step: int, recipe: TailRecipe) -> float:
    """Linear warm-up, then a cosine to 0."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums that several threads share come out differently with their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
