"""The families of generators. Stages that only draw images and map latents take any; fine-tuning takes StyleGAN's."""

from __future__ import annotations

from ohlora.errors import InvalidInputError
from ohlora.training.nets.mobilestylegan import MobileStyleGAN, MobileStyleGANConfig
from ohlora.training.nets.stylegan import Generator, GeneratorConfig

# Both have config, mapping, w_avg, broadcast and draw.
AnyGenerator = Generator | MobileStyleGAN
AnyConfig = GeneratorConfig | MobileStyleGANConfig


def require_stylegan(generator: AnyGenerator, what: object) -> Generator:
    """The generator itself. what: where it came from. Raises InvalidInputError for one of another family."""
    if not isinstance(generator, Generator):
        raise not_stylegan(what, type(generator).__name__)
    return generator


def not_stylegan(what: object, family: str) -> InvalidInputError:
    """The error that names the generator `what` of another family."""
    return InvalidInputError(
        f"fine-tuning needs a generator of the StyleGAN layout, and {what} is a {family}: it can be sampled, labeled "
        "and searched for directions"
    )
