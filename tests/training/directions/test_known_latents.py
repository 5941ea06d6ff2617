"""Directions from known parameters, and what is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ohlora.base.values import PROPERTIES, Expression, Face
from ohlora.errors import InvalidInputError
from ohlora.latents.directions import Directions
from ohlora.training import checkpoints
from ohlora.training.data import portraits
from ohlora.training.directions.known_latents import MIXTURES, find_directions, regress, state_sha256
from ohlora.training.directions.measure import STRENGTHS, from_generator, measure_directions, pearson
from ohlora.training.directions.reader import READ, Reader
from ohlora.training.nets.stylegan import Generator, GeneratorConfig

TINY = GeneratorConfig(resolution=16, z_size=512, w_size=96, mapping_layers=1, channel_base=64, channel_max=8)


class KnownMapping(nn.Module):
    """w = 3 + u A, of some parameters only, plus what further latents do."""

    def __init__(self) -> None:
        super().__init__()
        stream = torch.Generator().manual_seed(3)
        self.rows = torch.randn(portraits.LATENTS, TINY.w_size, generator=stream)
        self.rows[portraits.index("nod")] = 0  # w knows nothing of it
        self.other = torch.randn(100, TINY.w_size, generator=stream) * 0.1

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        return 3.0 + z[:, : portraits.LATENTS] @ self.rows + z[:, 200:300] @ self.other


@pytest.fixture(scope="module")
def known() -> Generator:
    torch.manual_seed(0)
    generator = Generator(TINY).eval()
    generator.mapping = KnownMapping()  # type: ignore[assignment]
    return generator


def test_rows_are_found(known: Generator) -> None:
    found = regress(known, samples=6000)
    assert np.abs(found.rows - known.mapping.rows.numpy()).max() < 0.15
    assert np.abs(found.mean - 3.0).max() < 0.15
    assert 0.97 < found.explained < 1
    assert found.readable["eye_opening"] > 0.9
    assert found.readable["nod"] < 0.1


def test_directions_are_mixtures_in_the_published_sign(known: Generator) -> None:
    directions, report = find_directions(known, samples=6000)
    assert directions.groups == ["all"]
    assert directions.generator_sha256 == state_sha256(known) == report["generator_sha256"]
    for name in PROPERTIES:
        exact = sum(weight * known.mapping.rows[portraits.index(p)].numpy() for p, weight in MIXTURES[name].items())
        made = directions.vectors[name]["all"]
        assert made.dtype == np.float64
        assert made @ exact / np.linalg.norm(made) / np.linalg.norm(exact) > 0.99
        assert np.linalg.norm(made) == pytest.approx(np.linalg.norm(exact), rel=0.05)
    # Positive strengths close eyes and mouth and lower the eye on the left of the picture, as the published ones do.
    assert all(MIXTURES[name][p] < 0 for name, p in (("eyes", "eye_opening"), ("mouth", "mouth_opening")))
    assert MIXTURES["pose"]["tilt"] < 0
    assert set(report["readable_from_w"]) == {"eye_opening", "mouth_opening", "tilt", "turn"}


def test_what_has_no_portraits_is_refused(known: Generator) -> None:
    torch.manual_seed(0)
    small = {"resolution": 8, "channel_base": 32, "channel_max": 4}
    with pytest.raises(InvalidInputError, match="3 labels"):
        regress(Generator(GeneratorConfig(z_size=512, w_size=8, label_size=3, **small)))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="z of this generator only 16"):
        regress(Generator(GeneratorConfig(z_size=16, w_size=8, **small)))  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="too few"):
        regress(known, samples=50)
    with pytest.raises(InvalidInputError, match="no parameter is called 'ears'"):
        regress(known, samples=2000).direction({"ears": 1.0})
    damaged = Generator(TINY)
    with torch.no_grad():
        damaged.mapping.dense[0].weight.fill_(float("nan"))
    with pytest.raises(InvalidInputError, match="NaN"):
        regress(damaged, samples=1000)


def test_state_hash_is_that_of_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator(TINY)
    checkpoints.save(generator, tmp_path / "g.safetensors", "stylegan")
    back = checkpoints.load("stylegan", tmp_path / "g.safetensors")
    assert state_sha256(back) == state_sha256(generator)
    with torch.no_grad():
        generator.synthesis.const[0, 0, 0, 0] += 1e-6
    assert state_sha256(back) != state_sha256(generator)


class Thermometer:
    """Reads three numbers that `portray` below wrote into the pixels."""

    names = READ

    def read(self, images: np.ndarray) -> np.ndarray:
        return images[:, 0, 0, :].astype(np.float64)[:, [0, 1, 2, 2]]


def portray(faces: Sequence[Face], expression: Expression) -> np.ndarray:
    """Eyes follow their strength, mouth goes the other way beyond 1, pose does nothing; eyes move the tilt a little."""
    images = np.zeros((len(faces), 4, 4, 3), np.uint8)
    for image, face in zip(images, faces, strict=True):
        own = int(30 * abs(float(face.z[0])))
        mouth = -20 * min(expression.mouth, 1.0) + 60 * max(expression.mouth - 1.0, 0.0)
        image[...] = (
            100 + own - round(30 * expression.eyes),
            120 + own + round(mouth),
            90 + own + round(3 * expression.eyes),
        )
    return images


def test_measured_figures() -> None:
    counted: list[int] = []
    figures = measure_directions(portray, Thermometer(), seeds=20, advance=counted.append)  # type: ignore[arg-type]
    assert sum(counted) == 20 * (1 + 4 + 4 + 4)
    eyes, mouth, pose = (figures[name] for name in PROPERTIES)
    assert eyes["correlation"] == pytest.approx(-1.0, abs=1e-3)
    assert eyes["correlation_per_face"] == pytest.approx(-1.0, abs=1e-3)
    assert -1 < eyes["correlation_raw"] < -0.7, "the faces' own differences are in it"
    assert eyes["monotone"] == 1.0
    assert eyes["mean_change"] == [36.0, 18.0, 0.0, -18.0, -36.0]
    assert eyes["change_per_strength"]["eye_opening"] == pytest.approx(-30 / figures["spread"]["eye_opening"], rel=1e-3)
    assert 0 < eyes["change_per_strength"]["tilt"] < 0.2 * -eyes["change_per_strength"]["eye_opening"]
    assert eyes["change_per_strength"]["mouth_opening"] == 0
    assert mouth["monotone"] == 0.0
    assert (pose["correlation"], pose["monotone"]) == (0.0, 1.0)


def test_measuring_needs_faces_and_strengths() -> None:
    with pytest.raises(InvalidInputError, match="3 faces or more, got 2"):
        measure_directions(portray, Thermometer(), seeds=2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="mouth needs two different strengths"):
        measure_directions(portray, Thermometer(), strengths={**STRENGTHS, "mouth": (1.0, 1.0)})  # type: ignore[arg-type]


def test_pictures_of_a_generator_move_along_its_directions(known: Generator) -> None:
    vector = np.random.default_rng(0).standard_normal(TINY.w_size)
    directions = Directions({name: {"all": vector} for name in PROPERTIES}, "test")
    images = from_generator(known, directions)
    faces = [Face(np.random.default_rng(i).standard_normal(512), name=str(i)) for i in range(2)]
    still, moved = images(faces, Expression()), images(faces, Expression(eyes=1.5))
    assert still.shape == (2, 16, 16, 3)
    assert still.dtype == np.uint8
    with torch.no_grad():
        w = known.mapping(torch.from_numpy(np.stack([face.z for face in faces])))
        wanted = known.synthesis(known.broadcast(w + 1.5 * torch.from_numpy(vector).float()))
    levels = ((wanted + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.abs(moved.astype(int) - levels).max() <= 1
    assert (still != moved).any()
    # The real reader takes them whatever their size.
    assert Reader(size=32, width=4).read(still).shape == (2, len(READ))


def test_pearson() -> None:
    a = np.array([0.0, 1, 2, 3])
    assert pearson(a, -2 * a) == pytest.approx(-1)
    assert pearson(a, np.ones(4)) == 0
    assert pearson(a, np.array([1.0, 0, 2, 1])) == pytest.approx(np.corrcoef(a, [1, 0, 2, 1])[0, 1])
