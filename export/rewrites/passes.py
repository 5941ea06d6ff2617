"""Every exact rewrite by name: what it applies to, what it does, and the rewrites that were looked at and not made.

    for one in passes_of("generator"):
        module = one.function(module)

A pass takes a module in evaluation mode and returns an equal one that computes or holds less; its argument is left as
it is. Passes of one network are applied in the order of `PASSES`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from ohlora.export.rewrites import generator
from ohlora.export.rewrites.batch_norms import fold_batch_norms
from ohlora.export.rewrites.discriminator import drop_dead_from_rgb, store_downsampling
from ohlora.export.rewrites.facexformer import parse_only
from ohlora.export.rewrites.generator import Collapse
from ohlora.export.rewrites.student import fold_encoder_norms, push_down_decoder
from ohlora.training.checkpoints import SCORE_CNNS

STUDENTS = ("student", "parsing")


@dataclass(frozen=True)
class Pass:
    """networks: names in `networks.table.NETWORKS`. collapse: of alternatives, the one that this is."""

    function: Callable[[Any], nn.Module]
    networks: tuple[str, ...]
    collapse: Collapse | None = None

    @property
    def name(self) -> str:
        return self.function.__name__

    @property
    def effect(self) -> str:
        """One sentence: the first of the function's docstring."""
        return " ".join(str(self.function.__doc__).split("\n\n")[0].split())


@dataclass(frozen=True)
class Declined:
    """A rewrite that is not made, and why."""

    name: str
    networks: tuple[str, ...]
    reason: str


PASSES = (
    Pass(generator.fold_gains, ("generator", "discriminator")),
    Pass(generator.drop_dead_rgb, ("generator",)),
    Pass(generator.fold_noise, ("generator",)),
    Pass(generator.precompute_start, ("generator",)),
    Pass(generator.simplify_adain, ("generator",)),
    Pass(generator.collapse_transposed, ("generator",), "transposed"),
    Pass(generator.collapse_subpixel, ("generator",), "subpixel"),
    Pass(drop_dead_from_rgb, ("discriminator",)),
    Pass(store_downsampling, ("discriminator",)),
    Pass(fold_encoder_norms, STUDENTS),
    Pass(push_down_decoder, STUDENTS),
    Pass(fold_batch_norms, ("bisenet", "reader")),
    Pass(parse_only, ("facexformer",)),
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


def passes_of(network: str, collapse: Collapse = "transposed") -> tuple[Pass, ...]:
    """The passes of a network in order; of alternatives the chosen one."""
    return tuple(one for one in PASSES if network in one.networks and one.collapse in (None, collapse))
