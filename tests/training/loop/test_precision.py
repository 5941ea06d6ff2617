"""Precisions have one name for people; what older versions wrote is still read, and their run folders resume."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ohlora.errors import InvalidInputError
from ohlora.training.cnn.recipes import score_cnn_recipe
from ohlora.training.gan.config import preset
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.precision import lightning_precision, precision_name
from ohlora.training.loop.slow_kernels import spare_slow_kernels
from ohlora.training.pipeline.sections import Machine


@pytest.mark.parametrize(("name", "older"), [("fp32", "32-true"), ("bf16", "bf16-mixed")])
def test_recipes_and_settings_read_the_older_words(name: str, older: str) -> None:
    for word in (name, older):
        assert precision_name(word) == name
        assert lightning_precision(word) == older
        assert preset("portraits", precision=word).precision == name
        assert ZooConfig(precision=word).precision == name
        assert score_cnn_recipe("property", precision=word).precision == name
        assert Machine(precision=word).precision == name  # type: ignore[arg-type]
        assert make_fabric("cpu", precision=word)._precision.precision == older


def test_sixteen_bit_floats_are_for_the_zoo() -> None:
    assert ZooConfig(precision="16-mixed").precision == "fp16"
    assert lightning_precision("fp16") == "16-mixed"
    with pytest.raises(InvalidInputError, match="unknown precision 'fp16': choose fp32 or bf16"):
        preset("portraits", precision="fp16")


def test_identities_of_older_runs_are_the_same() -> None:
    assert score_cnn_recipe("property", precision="bf16").identity()["precision"] == "bf16-mixed"
    for free in (preset("stylegan").identity(), ZooConfig().identity()):
        assert "precision" not in free


def test_slow_kernels_compute_in_float32() -> None:
    torch.manual_seed(0)
    wide = nn.Conv2d(4, 4, 5, padding=2, groups=4)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), wide, nn.Conv2d(4, 2, 3, padding=1, groups=2))
    x, states = torch.randn(1, 3, 8, 8), model.state_dict()
    spare_slow_kernels(model)
    kinds = {}
    for name, part in model.named_children():
        part.register_forward_hook(lambda part, given, made, name=name: kinds.update({name: made.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        model(x).float().sum().backward()
    assert kinds == {"0": torch.bfloat16, "1": torch.float32, "2": torch.bfloat16}
    assert wide.weight.grad is not None
    assert list(model.state_dict()) == list(states)
