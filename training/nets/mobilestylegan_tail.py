"""The end of a MobileStyleGAN without further upsampling: an image of 2R pixels from the features of R pixels.

All blocks behind the cut run on the R x R grid with their own, frozen affines; convolutions, biases and head are
fitted. `Tail.started` computes where they start from the network itself: exact for the first depthwise step, near for
the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.bundle.photo.architecture import BANDS, HAAR, SLOPE, Architecture, Block
from ohlora.bundle.photo.rewrites import bands_of
from ohlora.errors import InvalidInputError
from ohlora.training.nets.mobilestylegan import Head, Noise, StyledDepthwise, Synthesis, SynthesisBlock, Up

# [coarse tap, fine tap] of one axis: what a fine 3-tap kernel over a doubled line adds to a coarse one, its outputs
# summed over pairs; of a band that is the same in both pixels of a pair, and of one that changes its sign.
SAME = ((1.0, 0.0, 0.0), (1.0, 2.0, 1.0), (0.0, 0.0, 1.0))
ALTERNATING = ((-1.0, 0.0, 0.0), (1.0, 0.0, -1.0), (0.0, 0.0, 1.0))
# (y, x) of LL, B0, B1, B2.
BAND_TAPS = ((SAME, SAME), (ALTERNATING, SAME), (SAME, ALTERNATING), (ALTERNATING, ALTERNATING))


def coarse_kernels(fine: Tensor) -> Tensor:
    """Depthwise kernels [c,1,3,3] at 2R -> [c,4,3,3] at R: band alone, inverse Haar, kernel, mean over 2x2 pixels."""
    kernels = []
    for taps_y, taps_x in BAND_TAPS:
        rows, columns = fine.new_tensor(taps_y), fine.new_tensor(taps_x)
        kernels.append(HAAR[0][0] / 4 * rows @ fine[:, 0] @ columns.T)
    return torch.stack(kernels, 1)


def coarse_kernel(fine: Tensor) -> Tensor:
    """Depthwise kernels [c,1,3,3] at 2R -> [c,1,3,3] at R: pixels repeated, kernel, mean over 2x2 pixels."""
    taps = fine.new_tensor(SAME)
    kernel: Tensor = (taps @ fine[:, 0] @ taps.T / 4)[:, None]
    return kernel


class TailBlock(nn.Module):
    """x [N,C,r,r] and two rows of wp -> [N,C',r,r]; r: R, or the side of a crop.

    dw1: [c,4,3,3], a kernel for each band of a channel, in the order LL, B0, B1, B2.
    """

    noise1: Tensor
    noise2: Tensor
    bands: Tensor

    def __init__(self, block: Block, resolution: int, w_size: int) -> None:
        super().__init__()
        self.up = Up(block.inputs, w_size)
        self.style1 = Up(block.coarse, w_size)
        self.style2 = Up(block.outputs, w_size)
        self.dw1 = nn.Parameter(torch.zeros(block.coarse, BANDS, 3, 3))
        self.pw1 = nn.Conv2d(block.coarse, block.outputs, 1)
        self.dw2 = nn.Parameter(torch.zeros(block.outputs, 1, 3, 3))
        self.pw2 = nn.Conv2d(block.outputs, block.outputs, 1)
        for name in ("noise1", "noise2"):
            self.register_buffer(name, torch.zeros(1, 1, resolution, resolution))
        self.register_buffer("bands", torch.from_numpy(bands_of(block.inputs).T.copy()), persistent=False)

    @torch.no_grad()
    def start(self, block: SynthesisBlock) -> None:
        """Take over what the block at its own resolution has."""
        pairs: tuple[tuple[nn.Module, nn.Module], ...] = (
            (self.up.affine, block.up.affine),
            (self.style1.affine, block.conv1.affine),
            (self.style2.affine, block.conv2.affine),
        )
        for mine, theirs in pairs:
            mine.load_state_dict(theirs.state_dict())
        self.dw1.copy_(coarse_kernels(block.conv1.dw.weight) * block.conv1.scale)
        self.dw2.copy_(coarse_kernel(block.conv2.dw.weight) * block.conv2.scale)
        for pointwise, noise, layer in (
            (self.pw1, self.noise1, block.conv1),
            (self.pw2, self.noise2, block.conv2),
        ):
            _take(pointwise, layer)
            noise.copy_(F.adaptive_avg_pool2d(layer.noise, noise.shape[-1]))

    def forward(self, x: Tensor, first: Tensor, second: Tensor, noise: Noise) -> Tensor:
        coarse = self.dw1.shape[0]
        # Channels 4 j + k: the bands of a channel lie side by side, as a convolution in groups reads them.
        joint = self.up.style(first)[:, self.bands] * self.style1.style(first)[:, :, None]
        x = x[:, self.bands.flatten()] * joint.flatten(1)[:, :, None, None]
        x = self.pw1(F.conv2d(x, self.dw1, padding=1, groups=coarse))
        x = F.leaky_relu(x + noise(self.noise1), SLOPE)
        x = self.style2.modulated(x, second)
        x = self.pw2(F.conv2d(x, self.dw2, padding=1, groups=self.dw2.shape[0]))
        return F.leaky_relu(x + noise(self.noise2), SLOPE)


def _take(pointwise: nn.Conv2d, layer: StyledDepthwise) -> None:
    pointwise.load_state_dict({"weight": layer.pw.weight, "bias": layer.bias})


class Tail(nn.Module):
    """Features [N,C,R,R] and wp [N, layers, w_size] -> image [N,3,2R,2R]. cut: R."""

    def __init__(self, architecture: Architecture, cut: int) -> None:
        super().__init__()
        resolutions = [block.resolution for block in architecture.blocks[:-1]]
        if cut not in resolutions:
            raise InvalidInputError(
                f"a tail starts at the features of {', '.join(map(str, resolutions))} pixels, got {cut}"
            )
        self.architecture, self.cut = architecture, cut
        for block in self.blocks:
            self.add_module(block.name, TailBlock(block, cut, architecture.w_size))
        self.head = Head(architecture.channels[-1], architecture.w_size)
        self.head.scale = 1.0  # in its matrix

    @property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(block for block in self.architecture.blocks if block.resolution > self.cut)

    @classmethod
    def started(cls, synthesis: Synthesis, cut: int) -> Tail:
        """A tail whose values come from the network that it shall follow."""
        tail = cls(synthesis.config.architecture, cut).to(synthesis.const.dtype)
        for block in tail.blocks:
            ours = tail.get_submodule(block.name)
            assert isinstance(ours, TailBlock)
            ours.start(synthesis.get_submodule(block.name))  # type: ignore[arg-type]
        head = synthesis.head
        tail.head.affine.load_state_dict(head.affine.state_dict())
        with torch.no_grad():
            # All four pixels of a colour start as its lowest band, halved.
            tail.head.weight.copy_((head.weight[:3] / 2 * head.scale).repeat_interleave(4, 0))
            tail.head.bias.copy_((head.bias[:3] / 2).repeat_interleave(4))
        return tail

    def fitted(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What training changes: all but the affines."""
        return ((name, value) for name, value in self.named_parameters() if ".affine." not in name)

    def forward(self, features: Tensor, wp: Tensor, corners: Iterable[Iterable[int]] | None = None) -> Tensor:
        """corners: (y, x) of each row, where the features are crops, on the grid of R."""
        height, width = features.shape[2:]

        def cropped(noise: Tensor) -> Tensor:
            if corners is None:
                return noise
            return torch.cat([noise[..., y : y + height, x : x + width] for y, x in corners])

        x = features
        for block in self.blocks:
            x = self.get_submodule(block.name)(x, wp[:, block.row], wp[:, block.row + 1], cropped)
        head = self.head
        return F.pixel_shuffle(F.conv2d(head.modulated(x, wp[:, -1]), head.weight, head.bias), 2)


class TailedSynthesis(nn.Module):
    """wp [N, layers, w_size] -> image [N,3,2R,2R]: the network up to the cut, then a tail."""

    def __init__(self, synthesis: Synthesis, tail: Tail) -> None:
        super().__init__()
        self.synthesis, self.tail = synthesis, tail

    def forward(self, wp: Tensor) -> Tensor:
        image: Tensor = self.tail(self.synthesis.features(wp, self.tail.cut), wp)
        return image
