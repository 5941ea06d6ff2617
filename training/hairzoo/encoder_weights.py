"""Initial weights of an encoder. Nothing is downloaded unless a name of published weights was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from segmentation_models_pytorch.encoders import encoders
from torch import Tensor, nn

from ohlora.errors import CheckpointError, InvalidInputError
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.hairzoo.models import TAKEN_FROM_TIMM, TIMM, build_model, encoder_named
from ohlora.training.loop.states import first_line
from ohlora.training.weights.files import read_pickle, read_tensors
from ohlora.training.weights.state_dicts import Layout, load_layout
from ohlora.training.weights.student import imagenet_encoder_state

NONE, DOCUMENTED, INSTALLED = "none", "documented", "installed"
IMAGENET, NOISY_STUDENT = "imagenet", "noisy-student"
# The document's rule: these have ImageNet weights, all others are to start from Noisy Student's.
IMAGENET_ENCODERS = ("se_resnext50_32x4d", "se_resnext101_32x4d")
# Encoder -> timm's name of the network whose weights are a package of the train extra.
PACKAGED = {"timm-tf_efficientnet_lite0": "tf_efficientnet_lite0"}
# Classifiers of published files, which an encoder does not have.
HEADS = ("classifier.", "fc.", "_fc.", "last_linear.", "head.")
REMEDY = "give a file you have (--encoder-weights PATH), or --encoder-weights none"

Note = Callable[[str], None]


def documented_weights(encoder: str) -> str:
    """What the document starts this encoder from."""
    return IMAGENET if encoder in IMAGENET_ENCODERS else NOISY_STUDENT


def start_model(config: ZooConfig, note: Note = lambda text: None) -> nn.Module:
    """The recipe's network with its initial weights; the random ones by the recipe's seed.

    note: gets a line before anything is downloaded. Raises InvalidInputError when weights cannot be had,
    CheckpointError when a file does not fit.
    """
    wanted = config.encoder_weights
    if wanted == DOCUMENTED:
        wanted = documented_weights(config.encoder_type)
    torch.manual_seed(config.seed)
    name = encoder_named(config.encoder_type)
    if wanted not in (NONE, INSTALLED) and (name.startswith((TIMM, *TAKEN_FROM_TIMM))) and not Path(wanted).is_file():
        return _from_timm(config, wanted, note)
    model = build_model(config.encoder_type, config.decoder_type, image_size=config.image_size)
    encoder = cast(nn.Module, model.encoder)
    if wanted == INSTALLED:
        if config.encoder_type not in PACKAGED:
            packaged = ", ".join(PACKAGED)
            raise InvalidInputError(
                f"no installed weights for '{config.encoder_type}': a package has those of {packaged}; {REMEDY}"
            )
        load_encoder(encoder, imagenet_encoder_state(PACKAGED[config.encoder_type], encoder), "the installed package")
    elif Path(wanted).is_file():
        load_encoder(encoder, read_encoder_file(Path(wanted)), wanted)
    elif wanted != NONE:
        load_encoder(encoder, download(name, wanted, note), f"the published '{wanted}' weights")
    return model


def _from_timm(config: ZooConfig, wanted: str, note: Note) -> nn.Module:
    """A network whose encoder is timm's, with the weights timm names for it."""
    encoder = config.encoder_type
    if wanted != IMAGENET:
        raise InvalidInputError(
            f"the encoder {encoder} is timm's and starts from the weights its name says (tu-MODEL.TAG): use "
            f"--encoder-weights {IMAGENET}, got '{wanted}'; or {REMEDY}"
        )
    note(f"downloading the weights of {encoder} from the Hugging Face hub")
    with _said(f"the '{wanted}' weights of {encoder} cannot be had from the Hugging Face hub"):
        return build_model(encoder, config.decoder_type, image_size=config.image_size, pretrained=True)


def download(encoder: str, wanted: str, note: Note) -> dict[str, Tensor]:
    """Published weights from the library's place on the Hugging Face hub; kept in its cache.

    Raises InvalidInputError for a name the encoder has no weights of, and when they cannot be had.
    """
    published = encoders[encoder]["pretrained_settings"]
    if wanted not in published:
        raise InvalidInputError(
            f"no '{wanted}' weights for the encoder '{encoder}', and no file of that name: it has "
            f"{', '.join(published)}; {REMEDY}"
        )
    repository, revision = published[wanted]["repo_id"], published[wanted]["revision"]
    place = f"https://huggingface.co/{repository}"
    note(f"weights '{wanted}' of {encoder}: {place} (downloaded once)")
    with _said(f"the '{wanted}' weights of {encoder} cannot be had from {place}"):
        from huggingface_hub import hf_hub_download

        return read_tensors(hf_hub_download(repository, filename="model.safetensors", revision=revision))[1]


@contextmanager
def _said(failure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub's client raises a family of its own, and the system's errors
        raise InvalidInputError(
            f"{failure}: {first_line(error).rstrip('.')}. Connect to the network, copy model.safetensors from there by "
            f"hand and {REMEDY}"
        ) from error


def read_encoder_file(path: Path) -> dict[str, Tensor]:
    """A state dict of an encoder, .safetensors or a pickle of tensors. Raises CheckpointError naming the file."""
    if path.suffix == ".safetensors":
        return read_tensors(path)[1]
    content = read_pickle(path)
    foreign = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        raise CheckpointError(
            f"{path} is no encoder's state dict: '{foreign[0]}' is no tensor; give a whole model as --start-from"
        )
    return dict(content)


def load_encoder(encoder: nn.Module, state: dict[str, Tensor], what: str) -> None:
    """Strictly, but for a classifier that the encoder does not have, and step counters that old files lack.

    Raises CheckpointError naming the keys.
    """
    ours = encoder.state_dict()
    state = {key: value for key, value in state.items() if key in ours or not key.startswith(HEADS)}
    counters = {key: torch.zeros_like(value) for key, value in ours.items() if key.endswith("num_batches_tracked")}
    try:
        load_layout(encoder, counters | state, Layout({key: key for key in ours}))
    except CheckpointError as error:
        raise CheckpointError(f"{what} does not fit the encoder: {error}") from error
