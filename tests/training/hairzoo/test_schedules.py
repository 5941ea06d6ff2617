"""Learning rates by epoch: the documented table, and PyTorch's own schedulers for the others."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from ohlora.errors import InvalidInputError  # noqa: E402 - needs torch
from ohlora.training.hairzoo.config import ZooConfig  # noqa: E402
from ohlora.training.hairzoo.schedules import EPS, FACTOR, PATIENCE, T_0, T_MAX, Schedule  # noqa: E402

# As simulated with warmup-scheduler 0.3 on the published loop (docs/spec/segmentation.md, section 8).
TEN = (3e-5, 3e-5, 3e-4, 3e-4, 2.649e-4, 2.25e-4, 1.76e-4, 1.24e-4, 7.5e-5, 3.509e-5)
TWENTY = {1: 3e-5, 2: 3e-5, 3: 3e-4, 4: 3e-4, 5: 2.919e-4, 6: 2.819e-4, 20: 8.127e-6}


def rates(config: ZooConfig) -> list[float]:
    schedule, found = Schedule(config), []
    for _ in range(config.epochs):
        found.append(schedule.rate)
        schedule.after_epoch(0.5)
    return found


def test_documented_table_of_ten_epochs() -> None:
    assert rates(ZooConfig(epochs=10, floor=False)) == pytest.approx(TEN, rel=2.5e-3)
    assert [f"{r:.4g}" for r in rates(ZooConfig(epochs=10, floor=False))][4] == "0.0002649"


def test_documented_table_of_twenty_epochs() -> None:
    found = rates(ZooConfig(epochs=20, floor=False))
    assert {epoch: found[epoch - 1] for epoch in TWENTY} == pytest.approx(TWENTY, rel=5e-4)


def test_the_floor_is_used_unless_switched_off() -> None:
    kept = rates(ZooConfig(epochs=20, min_lr=2e-5))
    ignored = rates(ZooConfig(epochs=20, min_lr=2e-5, floor=False))
    assert min(kept[2:]) >= 2e-5 > min(ignored[2:])
    assert kept[:4] == ignored[:4]


@pytest.mark.parametrize("name", ["CosineAnnealingLR", "CosineAnnealingWarmRestarts"])
def test_cosines_are_those_of_torch(name: str) -> None:
    config = ZooConfig(epochs=11, scheduler=name, encoder_lr=2e-4, min_lr=3e-6)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config.encoder_lr)
    period = {"CosineAnnealingLR": {"T_max": T_MAX}, "CosineAnnealingWarmRestarts": {"T_0": T_0}}[name]
    other = getattr(torch.optim.lr_scheduler, name)(optimizer, eta_min=config.min_lr, **period)
    expected = []
    for _ in range(config.epochs):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        other.step()
    assert rates(config) == pytest.approx(expected)


def test_plateau_is_that_of_torch_and_waits_for_a_rise() -> None:
    config = ZooConfig(epochs=40, scheduler="ReduceLROnPlateau", encoder_lr=1e-3, min_lr=1e-5)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config.encoder_lr)
    other = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=FACTOR, patience=PATIENCE, eps=EPS, min_lr=config.min_lr
    )
    schedule = Schedule(config)
    scores = [0.1, 0.3, 0.5, *[0.5] * 7, 0.6, *[0.59] * 22]
    for score in scores:
        assert schedule.rate == pytest.approx(optimizer.param_groups[0]["lr"])
        schedule.after_epoch(score)
        other.step(score)
    assert schedule.rate == pytest.approx(config.min_lr)


def test_state_goes_on_where_it_was() -> None:
    config = ZooConfig(epochs=30, scheduler="ReduceLROnPlateau", encoder_lr=1e-3)
    whole, first = Schedule(config), Schedule(config)
    for _ in range(7):
        whole.after_epoch(0.4)
        first.after_epoch(0.4)
    second = Schedule(config)
    second.load_state_dict(first.state_dict())
    for _ in range(7):
        whole.after_epoch(0.4)
        second.after_epoch(0.4)
    assert second.state_dict() == whole.state_dict()
    with pytest.raises(InvalidInputError, match="CosineAnnealingLR"):
        Schedule(ZooConfig(scheduler="CosineAnnealingLR")).load_state_dict(first.state_dict())
