"""The discriminator of fine-tuning v5: branches of the property CNN against the label
(docs/spec/stylegan.md, section 9.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.training.nets.score_cnns import PROPERTY_PARTS, CropCnn, PropertyCnn, WidthConfig, at_cnn_size
from ohlora.training.nets.stylegan import require_shape

BRANCHES = ("eyes", "mouth", "pose")
HIDDEN = 64


@dataclass(frozen=True)
class V5DiscriminatorConfig(WidthConfig):
    """Of the branches, as in the property CNN they come from."""

    @property
    def label_size(self) -> int:
        return len(BRANCHES)


class V5Discriminator(nn.Module):
    """Real or generated, and of this label? image [N,3,R,R] in [-1,1], label [N,3] -> raw score [N,1].

    Pictures of other sizes than 256 are scaled to it, differentiably. In train mode the branches' dropout is on.
    """

    def __init__(self, config: V5DiscriminatorConfig = V5DiscriminatorConfig()) -> None:
        super().__init__()
        self.config = config
        self.parts = nn.ModuleDict({name: CropCnn(PROPERTY_PARTS[name], config.width) for name in BRANCHES})
        self.hidden = nn.Linear(2 * len(BRANCHES), HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)

    def scores(self, image: Tensor) -> Tensor:
        """What the branches see in a picture: eyes, mouth, pose [N,3]."""
        if image.ndim != 4 or image.shape[1] != 3 or image.shape[2] != image.shape[3]:
            raise InvalidInputError(f"image must have shape [N, 3, R, R], got {list(image.shape)}")
        at_size = at_cnn_size(image)
        return torch.cat([cast(CropCnn, self.parts[name])(at_size) for name in BRANCHES], 1)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        require_shape("label", label, len(BRANCHES))
        seen = self.scores(image)
        score: Tensor = self.output(torch.tanh(self.hidden(torch.cat([seen, label], 1))))
        return score


def from_property_cnn(cnn: PropertyCnn) -> V5Discriminator:
    """The documented start: branches of a trained property CNN, fresh last layers (PyTorch's default)."""
    module = V5Discriminator(V5DiscriminatorConfig(cnn.config.width))
    for name in BRANCHES:
        module.parts[name].load_state_dict(cnn.parts[name].state_dict())
    return module
