"""The places in a generator where directions may be added (docs/spec/vectorfind.md, section 6.1).

z               z and label, one after the other: before the mapping network
w               its result
mapping_split1  w1 and w2, one after the other: before the last layers of a split mapping network (v9)
mapping_split2  w1' and w2', one after the other: behind those layers; their sum is w
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args

from ohlora.base.types import check_choice
from ohlora.errors import InvalidInputError

Space = Literal["z", "w", "mapping_split1", "mapping_split2"]
SPACES: tuple[Space, ...] = get_args(Space)
SPLIT_SPACES: tuple[Space, ...] = ("mapping_split1", "mapping_split2")


class LatentSizes(Protocol):
    """How many numbers a generator's latents have: a bundle's `GeneratorPart`, or the configuration in training.

    split_size: width of the second branch of a split mapping network, 0 without one.
    """

    @property
    def z_size(self) -> int: ...
    @property
    def label_size(self) -> int: ...
    @property
    def w_size(self) -> int: ...
    @property
    def split_size(self) -> int: ...


def check_space(space: str) -> Space:
    """`space`, when there is one of that name. Raises InvalidInputError otherwise."""
    return check_choice("latent space", space, SPACES)


def space_size(space: str, sizes: LatentSizes, owner: str) -> int:
    """Length of a vector of `space` in a generator of these sizes. owner: whose generator it is, for the message.

    Raises InvalidInputError for an unknown space, or a split one in a generator whose mapping network has one branch.
    """
    space = check_space(space)
    if space in SPLIT_SPACES and not sizes.split_size:
        raise InvalidInputError(
            f"directions in {space} need a mapping network of two branches, that of {owner} has one: use directions in "
            "w or z, or a generator of kind stylegan-finetune-v9 or stylegan-vectorfind-v9, built into a bundle by "
            "this version"
        )
    lengths = {
        "z": sizes.z_size + sizes.label_size,
        "w": sizes.w_size,
        "mapping_split1": sizes.w_size + sizes.split_size,
        "mapping_split2": 2 * sizes.w_size,
    }
    return lengths[space]
