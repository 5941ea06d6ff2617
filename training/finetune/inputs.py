"""The files a fine-tuning run starts from, and what to do about those that are missing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import nn

from ohlora.bundle import Bundle
from ohlora.bundle.files import file_sha256, locate
from ohlora.bundle.manifest import MANIFEST_NAME
from ohlora.bundle.photo.install import KIND as PHOTOGRAPHIC_KIND
from ohlora.errors import InvalidInputError
from ohlora.io.images import list_images
from ohlora.training import checkpoints
from ohlora.training.finetune.recipes import Recipe
from ohlora.training.nets.families import AnyGenerator, not_stylegan, require_stylegan
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.weights.files import read_metadata, require_file

M = TypeVar("M", bound=nn.Module)

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
        needs = {
            "generator": True,
            "discriminator": recipe.discriminator == "stylegan",
            "images": recipe.family != "score-guided",
            "scores": recipe.labels == "scores",
            "property_cnn": recipe.discriminator == "property-cnn" or recipe.family != "gan",
            "gender_cnn": recipe.family == "cvae" and recipe.gender_weight > 0,
        }
        return tuple(name for name, need in needs.items() if need)

    def require(self, recipe: Recipe) -> None:
        """Raises InvalidInputError naming what is missing and the stage that makes it; for a photographic generator."""
        if is_photographic(self.generator):
            raise not_stylegan(self.generator, "MobileStyleGAN")
        for name in self.needed(recipe):
            self.path(name, f"recipe {recipe.version}")
        for name, (what, stage) in list(MADE_BY.items())[1:]:  # a generator may be a bundle's name
            if (value := getattr(self, name)) is not None and not Path(value).exists():
                raise InvalidInputError(f"no {what} {value}: it is made by {stage}")

    def path(self, name: str, who: str = "this recipe") -> Path:
        """A file by its name. Raises InvalidInputError when there is none."""
        if (value := getattr(self, name)) is None:
            what, stage = MADE_BY[name]
            raise InvalidInputError(f"{who} needs a {what}: --{name.replace('_', '-')} (made by {stage})")
        return Path(value)

    def identity(self, recipe: Recipe) -> dict[str, str]:
        """Fingerprints of the files a run depends on; where they lie does not matter."""
        return {name: fingerprint(self.path(name)) for name in self.needed(recipe)}

    def reads(self, recipe: Recipe) -> dict[str, list[Path]]:
        """Files whose content decides, where `identity` has no more than their names."""
        files: dict[str, list[Path]] = {}
        if "images" in self.needed(recipe):
            files["pictures"] = list_images(self.path("images"))
        if isinstance(self.generator, str) and not Path(self.generator).exists():
            files["generator"] = [locate(self.generator) / MANIFEST_NAME]
        return files

    def describe(self) -> dict[str, str | None]:
        """The paths as text, for summaries."""
        return {name: None if (value := getattr(self, name)) is None else str(value) for name in MADE_BY}


def load_generator(source: Path | str, *, smooth: bool = False) -> Generator:
    """A generator of any documented kind or size: .pth, our .safetensors, or a bundle's name or folder.

    Raises InvalidInputError for a generator of another family than StyleGAN's.
    """
    return require_stylegan(load_any_generator(source, smooth=smooth), source)


def load_any_generator(source: Path | str, *, smooth: bool = False) -> AnyGenerator:
    """The same, or the photographic one: by its bundle, our .safetensors, or the package's wheel."""
    path = Path(source)
    if not _is_weights(path):
        from ohlora.training.unbundle.generator import unbundled

        return unbundled(source)
    if is_photographic(path):
        return checkpoints.load_as(MobileStyleGAN, PHOTOGRAPHIC_KIND, path)
    return _load_recognised(Generator, path, "stylegan", GENERATORS, smooth)


def is_photographic(source: Path | str) -> bool:
    """Whether a generator's weights or bundle are of the photographic family, without reading its networks."""
    path = Path(source)
    if _is_weights(path):
        return path.suffix == ".whl" or (path.suffix == ".safetensors" and _own_kind(path) == PHOTOGRAPHIC_KIND)
    return Bundle.open(source).generator_part().kind == PHOTOGRAPHIC_KIND


def _is_weights(path: Path) -> bool:
    return path.suffix in (".pth", ".pt", ".safetensors", ".whl") or path.is_file()


def load_discriminator(path: Path | str, *, smooth: bool = False) -> Discriminator:
    """A StyleGAN discriminator of any documented kind or size: .pth or our .safetensors."""
    return _load_recognised(Discriminator, Path(path), "discriminator", STYLEGAN_DISCRIMINATORS, smooth)


def _load_recognised(network: type[M], path: Path, own: str, published: tuple[str, ...], smooth: bool) -> M:
    if path.suffix == ".safetensors":
        kind = _own_kind(path)
        # Any kind of the family will do: the configuration is in the file.
        return checkpoints.load_as(network, kind if kind.split("-")[0] == own else own, path)
    return checkpoints.load_as(network, checkpoints.recognise(path, published), path, smooth=smooth)


def _own_kind(path: Path) -> str:
    return read_metadata(require_file(path)).get("kind", "")


def fingerprint(path: Path) -> str:
    """16 hex digits of a file's content, or of the names and sizes of a folder's pictures; a bundle's name as it is."""
    if (path / "bundle.json").is_file():
        path = path / "bundle.json"  # names the hash of every file of the bundle
    if path.is_dir():
        names = "".join(f"{file.name} {file.stat().st_size}\n" for file in list_images(path))
        return hashlib.sha256(names.encode()).hexdigest()[:16]
    return file_sha256(path)[:16] if path.is_file() else str(path)
