"""The documented weights files, in the published layout, so that other programs of the family can load them."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ohlora.training import checkpoints
from ohlora.training.finetune.transfer import AnyDiscriminator
from ohlora.training.loop.states import save_tensors
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.weights.published import published_state

PREFIX = "stylegan_"


def generator_file(version: str, beside: str = "") -> str:
    """Documented name of a fine-tuned generator (docs/spec/stylegan.md, section 12, D8), or of what lies beside it."""
    return f"{PREFIX}gen_fine_tuned_{version}{beside and '_'}{beside}.pth"


def discriminator_file(version: str) -> str:
    return f"{PREFIX}dis_fine_tuned_{version}.pth"


def write_published(path: Path, module: nn.Module) -> None:
    """A bare state dict on the CPU under the published names, as the documented files are. Atomic."""
    save_tensors(path, {key: value.detach().cpu().clone() for key, value in published_state(module).items()})


def save_networks(out: Path, version: str, generator: Generator, discriminator: AnyDiscriminator | None = None) -> None:
    """generator.safetensors, discriminator.safetensors and the documented .pth of both, each atomically."""
    checkpoints.save(generator, out / "generator.safetensors", "stylegan")
    write_published(out / generator_file(version), generator)
    if discriminator is not None:
        kind = "discriminator" if isinstance(discriminator, Discriminator) else "discriminator-finetune-v5"
        checkpoints.save(discriminator, out / "discriminator.safetensors", kind)
        write_published(out / discriminator_file(version), discriminator)
