"""The documented weights files, in the published layout, so that other programs of the family can load them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ohlora.base.atomic import atomic_path
from ohlora.errors import OutputError
from ohlora.training import checkpoints
from ohlora.training.finetune.transfer import AnyDiscriminator
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.weights.published import published_state

PREFIX = "stylegan_"


def generator_file(version: str) -> str:
    """Documented name of a fine-tuned generator (docs/spec/stylegan.md, section 12, D8)."""
    return f"{PREFIX}gen_fine_tuned_{version}.pth"


def discriminator_file(version: str) -> str:
    return f"{PREFIX}dis_fine_tuned_{version}.pth"


def write_torch(path: Path, content: Any) -> None:
    """torch.save, atomically. Raises OutputError, also for a disk that fills up while PyTorch writes."""
    with atomic_path(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # PyTorch's zip writer makes this of any failed write
            raise OutputError(
                f"cannot write {path}: {str(error).splitlines()[0][:120]}; the disk is full or not writable: free some "
                "space and run the same command again, it resumes"
            ) from error


def write_published(path: Path, state: Mapping[str, Tensor]) -> None:
    """A bare state dict on the CPU, as the documented files are. Atomic."""
    write_torch(path, {key: value.detach().cpu().clone() for key, value in state.items()})


def save_networks(out: Path, version: str, generator: Generator | None, discriminator: AnyDiscriminator | None) -> None:
    """generator.safetensors, discriminator.safetensors and the documented .pth of both, each atomically."""
    if generator is not None:
        checkpoints.save(generator, out / "generator.safetensors", "stylegan")
        write_published(out / generator_file(version), published_state(generator))
    if discriminator is not None:
        kind = "discriminator" if isinstance(discriminator, Discriminator) else "discriminator-finetune-v5"
        checkpoints.save(discriminator, out / "discriminator.safetensors", kind)
        write_published(out / discriminator_file(version), published_state(discriminator))
