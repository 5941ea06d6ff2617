"""Networks of the zoo: segmentation_models_pytorch, one class, logits. Encoders and decoders by name."""

from __future__ import annotations

import warnings

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import nn

from ohlora.base.recipe import pick
from ohlora.base.text import near
from ohlora.errors import InvalidInputError
from ohlora.training.hairzoo.config import DIVISOR
from ohlora.training.loop.states import first_line

DECODERS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
# Of the document; the library may have more.
DOCUMENTED_DECODERS = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus",
)  # fmt: skip
TIMM = "tu-"  # prefix with which the library takes any feature extractor of timm
# Families that the library had as its own encoders and now takes from timm, published under these names.
TAKEN_FROM_TIMM = ("timm-regnet", "timm-res2", "timm-resnest", "timm-mobilenetv3", "timm-gernet")
PUBLISHED_EFFICIENTNET = "timm-efficientnet-"
TOP_K = 5  # names in a message


def encoder_named(name: str) -> str:
    """The installed library's name of the encoder published as `name`. Raises InvalidInputError naming a near match."""
    known = get_encoder_names()
    if name in known or name.startswith(TAKEN_FROM_TIMM):
        return name
    if name.startswith(PUBLISHED_EFFICIENTNET):
        # Deprecated names: a library that has dropped them still has the networks, by timm's name.
        moved = f"{TIMM}tf_efficientnet_{name.removeprefix(PUBLISHED_EFFICIENTNET)}"
        if timm.is_model(moved.removeprefix(TIMM)):
            return moved
    if name.startswith(TIMM):
        if timm.is_model(name.removeprefix(TIMM).split(".")[0]):
            return name
        models = [TIMM + model for model in timm.list_models()]
        raise InvalidInputError(f"unknown encoder '{name}': timm has no such model{near(name, models, TOP_K)}")
    raise InvalidInputError(
        f"unknown encoder '{name}'{near(name, known, TOP_K)}: choose one of {len(known)} of the library (`ohlora train "
        f"hairzoo --list`), or {TIMM}NAME for any feature extractor of timm"
    )


def build_model(encoder: str, decoder: str, *, image_size: int | None = None, pretrained: bool = False) -> nn.Module:
    """A fresh network: picture [B,3,H,W], ImageNet-normalised -> logits [B,1,H,W]; H and W multiples of 32.

    image_size: for transformers of timm, which are built for one size. pretrained: with timm's own weights; of `tu-`
    encoders only. Raises InvalidInputError naming the encoder, the decoder and why they do not go together.
    """
    kind, name = pick(DECODERS, decoder, "decoder"), encoder_named(encoder)
    extra = {"img_size": image_size} if image_size is not None and takes_size(name) else {}
    weights = True if pretrained else None
    try:
        with warnings.catch_warnings():
            # The published names are deprecated in the library; here they are the documented ones.
            warnings.simplefilter("ignore")
            model: nn.Module = kind(encoder_name=name, encoder_weights=weights, in_channels=3, classes=1, **extra)
    except OSError:  # of a download
        raise
    except Exception as error:  # the library's parts raise nearly anything
        raise InvalidInputError(
            f"{decoder} cannot be built on the encoder {encoder}: {first_line(error).rstrip('.')}. Choose another "
            "--decoder-type (Unet and FPN take nearly every encoder) or another --encoder-type"
        ) from error
    return model


def takes_size(name: str) -> bool:
    """Whether an encoder of timm is built for one picture size (a transformer with position embeddings)."""
    if not name.startswith(TIMM):
        return False
    config = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    return bool(config is not None and config.fixed_input_size)


@torch.no_grad()
def check_size(model: nn.Module, name: str, image_size: int) -> None:
    """One picture through the network in evaluation mode, as some combinations fail only then.

    Raises InvalidInputError, which calls the network `name`.
    """
    was_training = model.training
    model.eval()
    try:
        shape = tuple(model(torch.zeros(1, 3, image_size, image_size)).shape)
        if shape != (1, 1, image_size, image_size):
            raise RuntimeError(f"the map comes out as {shape}")
    except Exception as error:  # as above
        raise InvalidInputError(
            f"{name} does not work at {image_size} pixels: {first_line(error).rstrip('.')}. Choose another "
            f"--img-size (a larger multiple of {DIVISOR}), --decoder-type or --encoder-type"
        ) from error
    finally:
        model.train(was_training)
