"""The files a fine-tuning run starts from, and what to do about those that are missing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ohlora.errors import InvalidInputError
from ohlora.io.images import list_images
from ohlora.training import checkpoints
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.weights.files import read_metadata, require_file

GENERATORS = tuple(name for name in checkpoints.KINDS if name.startswith("stylegan-"))
STYLEGAN_DISCRIMINATORS = ("discriminator-celeba256", "discriminator-finetune-v1", "discriminator-finetune-v4")

# Field -> (what it is, the command that makes it).
MADE_BY: dict[str, tuple[str, str]] = {
    "generator": ("start generator", "ohlora train gan, or an earlier ohlora train finetune"),
    "discriminator": ("start discriminator", "ohlora train finetune-discriminator"),
    "images": ("training pictures (NNNNNN.jpg)", "ohlora train sample, then classify and filter"),
    "scores": ("score table", "ohlora score images"),
    "property_cnn": ("property CNN", "ohlora train property-cnn"),
    "gender_cnn": ("gender CNN", "ohlora train classifier gender"),
    "monitor_models": ("folder of the classifier CNNs", "ohlora train classifier"),
}


@dataclass(frozen=True)
class FineTuneInputs:
    """Files of a run; which of them are needed depends on the recipe (`require`).

    generator, discriminator: published .pth (the kind is recognised) or our .safetensors, any size; a generator may
    also be a bundle's name or folder. images: folder of numbered pictures. scores: score table joined to them by
    number. property_cnn, gender_cnn: published .pth/.pt or our .safetensors. monitor_models: folder of classifier
    CNNs that watch v8 and v9.
    """

    generator: Path | str
    discriminator: Path | None = None
    images: Path | None = None
    scores: Path | None = None
    property_cnn: Path | None = None
    gender_cnn: Path | None = None
    monitor_models: Path | None = None

    def needed(self, recipe: Recipe) -> tuple[str, ...]:
        """Names of the files that `recipe` cannot do without."""
        names = ["generator"]
        if recipe.discriminator == "stylegan":
            names.append("discriminator")
        if recipe.family != "score-guided":
            names.append("images")
        if recipe.labels == "scores":
            names.append("scores")
        if recipe.discriminator == "property-cnn" or recipe.family != "gan":
            names.append("property_cnn")
        if recipe.family == "cvae" and recipe.gender_weight:
            names.append("gender_cnn")
        return tuple(names)

    def require(self, recipe: Recipe) -> None:
        """Raises InvalidInputError naming what is missing and the stage that makes it."""
        for name, (what, stage) in MADE_BY.items():
            value = getattr(self, name)
            if value is None:
                if name in self.needed(recipe):
                    raise InvalidInputError(
                        f"recipe {recipe.version} needs a {what}: --{name.replace('_', '-')} (made by {stage})"
                    )
            elif name != "generator" and not Path(value).exists():
                raise InvalidInputError(f"no {what} {value}: it is made by {stage}")

    def identity(self, recipe: Recipe) -> dict[str, str]:
        """Fingerprints of the files a run depends on; where they lie does not matter."""
        return {name: fingerprint(Path(getattr(self, name))) for name in self.needed(recipe)}

    def load_generator(self, smooth: bool = False) -> Generator:
        """The start generator, in evaluation mode on the CPU. Raises CheckpointError or InvalidInputError."""
        return load_generator(self.generator, smooth=smooth)

    def load_discriminator(self, smooth: bool = False) -> Discriminator:
        """The start discriminator. Raises CheckpointError, InvalidInputError when there is none."""
        if self.discriminator is None:
            raise InvalidInputError(
                f"a start discriminator is needed: --discriminator (made by {MADE_BY['discriminator'][1]})"
            )
        return load_discriminator(self.discriminator, smooth=smooth)


def load_generator(source: Path | str, *, smooth: bool = False) -> Generator:
    """A generator of any documented kind or size: .pth, our .safetensors, or a bundle's name or folder."""
    path = Path(source)
    if path.suffix in (".pth", ".pt", ".safetensors") or path.is_file():
        module = _load_recognised(path, "stylegan", GENERATORS, smooth)
    else:
        from ohlora.training.unbundle.generator import generator_from_bundle

        module = generator_from_bundle(source)
    assert isinstance(module, Generator)
    return module


def load_discriminator(path: Path | str, *, smooth: bool = False) -> Discriminator:
    """A StyleGAN discriminator of any documented kind or size: .pth or our .safetensors."""
    module = _load_recognised(Path(path), "discriminator", STYLEGAN_DISCRIMINATORS, smooth)
    assert isinstance(module, Discriminator)
    return module


def _load_recognised(path: Path, own: str, published: tuple[str, ...], smooth: bool) -> nn.Module:
    if path.suffix == ".safetensors":
        kind = own_kind(path)
        # Any kind of the family will do: the configuration is in the file.
        return checkpoints.load(kind if kind.split("-")[0] == own else own, path)
    return checkpoints.load(checkpoints.recognise(path, published), path, smooth=smooth)


def own_kind(path: Path) -> str:
    """The kind that one of our .safetensors files says it is. Raises CheckpointError for a missing or foreign file."""
    return read_metadata(require_file(path)).get("kind", "")


def fingerprint(path: Path) -> str:
    """16 hex digits of a file's content, or of the names and sizes of a folder's pictures; a bundle's name as it is."""
    digest = hashlib.sha256()
    if path.is_dir() and (path / "bundle.json").is_file():
        path = path / "bundle.json"  # names the hash of every file of the bundle
    if path.is_dir():
        for file in list_images(path):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
    elif path.is_file():
        with path.open("rb") as opened:
            while block := opened.read(1 << 22):
                digest.update(block)
    else:
        return str(path)
    return digest.hexdigest()[:16]


def describe(inputs: FineTuneInputs) -> dict[str, Any]:
    """The paths as text, for summaries."""
    return {name: None if (value := getattr(inputs, name)) is None else str(value) for name in MADE_BY}
