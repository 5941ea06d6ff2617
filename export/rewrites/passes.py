"""Every exact rewrite by name: what it applies to, what it saves, and the rewrites that were looked at and not made.

    for one in passes_of("generator"):
        module = one.function(module)

A pass takes a module in evaluation mode and returns an equal one that computes or holds less; its argument is left as
it is. Passes of one network are applied in the order of `PASSES`; of those with the same `choice` one is applied.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ohlora.errors import InvalidInputError
from ohlora.export.rewrites import generator as rewrites
from ohlora.export.rewrites.batch_norms import fold_batch_norms
from ohlora.export.rewrites.discriminator import drop_dead_from_rgb, store_downsampling
from ohlora.export.rewrites.facexformer import parse_only
from ohlora.export.rewrites.student import fold_encoder_norms, push_down_decoder
from ohlora.training.checkpoints import SCORE_CNNS

STUDENTS = ("student", "parsing")


@dataclass(frozen=True)
class Pass:
    """networks: names in `networks.table.NETWORKS`. effect: one sentence. choice: passes that stand for each other."""

    name: str
    networks: tuple[str, ...]
    effect: str
    function: Callable[[Any], nn.Module]
    choice: str | None = None


@dataclass(frozen=True)
class Declined:
    """A rewrite that is not made, and why."""

    name: str
    networks: tuple[str, ...]
    reason: str


PASSES: tuple[Pass, ...] = (
    Pass(
        "fold_gains",
        ("generator", "discriminator"),
        "The equalised learning rate is multiplied into the weights.",
        rewrites.fold_gains,
    ),
    Pass(
        "drop_dead_rgb",
        ("generator",),
        "ToRGB layers of the coarser blocks are removed: at level of detail 0 only the last draws.",
        rewrites.drop_dead_rgb,
    ),
    Pass(
        "fold_noise",
        ("generator",),
        "Stored noise x strength + bias is one constant map per layer: one addition in place of two and a product.",
        rewrites.fold_noise,
    ),
    Pass(
        "precompute_start",
        ("generator",),
        "The first layer up to its style is a constant: no activation and no norm at 4 x 4.",
        rewrites.precompute_start,
    ),
    Pass(
        "simplify_adain",
        ("generator",),
        "The norm is the runtimes' own operation and the style scale's + 1 sits in the affine's bias.",
        rewrites.simplify_adain,
    ),
    Pass(
        "collapse_transposed",
        ("generator",),
        "Nearest x2 and 3x3 convolution, 9 taps a pixel, are one stored 4x4 stride-2 transposed convolution of 4.",
        functools.partial(rewrites.collapse_upsampling, collapse="transposed"),
        choice="collapse",
    ),
    Pass(
        "collapse_subpixel",
        ("generator",),
        "The same as one stored 2x2 convolution to four phases and depth to space, also 4 taps a pixel.",
        functools.partial(rewrites.collapse_upsampling, collapse="subpixel"),
        choice="collapse",
    ),
    Pass(
        "drop_dead_from_rgb",
        ("discriminator",),
        "FromRGB layers of all blocks but the first are removed: at level of detail 0 only that one sees the picture.",
        drop_dead_from_rgb,
    ),
    Pass(
        "store_downsampling",
        ("discriminator",),
        "3x3 convolution and 2x2 mean, 36 taps a pixel, are one stored 4x4 stride-2 convolution of 16.",
        store_downsampling,
    ),
    Pass(
        "fold_encoder_norms",
        STUDENTS,
        "Every batch norm of the encoder sits in the convolution before it, and 'same' padding is constant.",
        fold_encoder_norms,
    ),
    Pass(
        "push_down_decoder",
        STUDENTS,
        "The decoder's norms sit in the 1x1 convolutions after them, which run before the upsampling they followed.",
        push_down_decoder,
    ),
    Pass(
        "fold_batch_norms",
        ("bisenet", "reader"),
        "Every batch norm after a convolution that nothing else reads sits in that convolution.",
        fold_batch_norms,
    ),
    Pass(
        "parse_only",
        ("facexformer",),
        "Heads of the other seven questions are gone; window biases, projections with fusion and the tokens' first "
        "attention are constants; upscaling is linear per pixel.",
        parse_only,
    ),
)

DECLINED: tuple[Declined, ...] = (
    Declined(
        "fold_blur",
        ("generator",),
        "Not exact: the blur pads the upsampled map with zeros, where a merged kernel sees the transposed convolution "
        "go on beyond the border. It would also take 9 taps of every channel pair in place of 4.",
    ),
    Declined(
        "fold_blur",
        ("discriminator",),
        "Not exact: the convolution pads the blurred map with zeros, where a merged 6x6 kernel sees the blur go on "
        "beyond the border. It would also take 36 taps of every channel pair in place of 16.",
    ),
    Declined(
        "batch_affines",
        ("generator",),
        "Exact, but no gain: the style affines are bound by reading their weights, however they are grouped "
        "(measured by bench/suites/rewrite_cases.py).",
    ),
    Declined(
        "fold_batch_norms",
        (*(f"cnn-{name}" for name in SCORE_CNNS), "discriminator", "discriminator-v5", "cvae-encoder", "mtcnn"),
        "These networks have no batch norm.",
    ),
    Declined(
        "phase_kernels",
        STUDENTS,
        "Exact, but a loss: four depthwise kernels over the small map and depth to space read a quarter, yet runtimes "
        "have no fast kernel for four outputs of one channel (measured by bench/suites/rewrite_cases.py).",
    ),
    Declined(
        "fold_picture_scale",
        (*STUDENTS, "bisenet", "reader"),
        "Not exact: their first convolution pads the scaled picture with zeros, which are no byte value.",
    ),
)


def passes_of(network: str, **choices: str) -> tuple[Pass, ...]:
    """The passes of a network in order; of alternatives the chosen, else the first (`collapse="collapse_subpixel"`).

    Raises InvalidInputError for a choice that the network does not have.
    """
    mine = [one for one in PASSES if network in one.networks]
    offered: dict[str, list[str]] = {}
    for one in mine:
        if one.choice is not None:
            offered.setdefault(one.choice, []).append(one.name)
    for choice, name in choices.items():
        if name not in offered.get(choice, ()):
            known = ", ".join(offered.get(choice, ())) or "nothing"
            raise InvalidInputError(f"'{name}' is no {choice} of the network '{network}': it offers {known}")
    taken = {choice: choices.get(choice, names[0]) for choice, names in offered.items()}
    return tuple(one for one in mine if one.choice is None or one.name == taken[one.choice])
