"""Checkpoints -> bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.bundle import Bundle, ParsingPart
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.export.bundle.builder import build_bundle
from ohlora.faces import face_from_seed
from ohlora.latents.directions import read_directions
from ohlora.training import checkpoints
from ohlora.training.nets.stylegan import Generator
from ohlora.training.weights.effisegnet_keys import STUDENT
from tests.support.small_students import golden_value

HAIR_ONLY: dict[str, Any] = {
    "generator": None,
    "kind": "",
    "hair": "demo",
    "directions": None,
    "name": "copy",
    "license": "none",
    "provenance": "test",
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_input_same_bytes(tmp_path: Path) -> None:
    build_bundle(tmp_path / "a", **HAIR_ONLY)
    build_bundle(tmp_path / "b", **HAIR_ONLY)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert str(tmp_path).encode() not in b"".join(contents(tmp_path / "a").values())


def test_published_student(tmp_path: Path) -> None:
    torch.save({key: golden_value(key, shape) for key, shape in STUDENT.shapes().items()}, tmp_path / "y.pth")
    bundle = build_bundle(tmp_path / "b", **{**HAIR_ONLY, "hair": str(tmp_path / "y.pth")})
    part = bundle.hair_part()
    assert "tf_efficientnet_b0" in part.architecture
    assert part.parity["max_abs_error"] < 0.01  # type: ignore[operator]
    with bundle.hair_engine("onnxruntime") as engine:  # type: ignore[attr-defined]
        assert engine(image=np.zeros((1, 224, 224, 3), np.uint8))["hair"].shape == (1, 224, 224)


def test_generator_directions_and_gallery(tiny_bundle: Path) -> None:
    bundle = Bundle.open(tiny_bundle)
    published = read_directions(tiny_bundle.parent / "directions")
    stored = bundle.directions()
    assert not list(tiny_bundle.glob("mapping_end*"))
    assert "split_size" not in (tiny_bundle / "bundle.json").read_text()
    for i, group in enumerate(stored["groups"]):
        assert np.array_equal(stored["mouth"][i], published.vectors["mouth"][group])
    assert [(name, group) for name, group, *_ in bundle.gallery()] == [("case0007", "hh"), ("case0031", "ll")]
    module = checkpoints.load("stylegan", tiny_bundle.parent / "g.safetensors")
    assert isinstance(module, Generator)
    z = face_from_seed(5).z[None].copy()
    mapping, synthesis = bundle.generator_engines("onnxruntime")
    w = mapping(z=z)["w"]
    image = synthesis(wp=np.repeat(w[:, None], module.config.layers, 1))["image"][0]
    with torch.no_grad():
        expected = module(torch.from_numpy(z))
    expected = expected["image"] if isinstance(expected, dict) else expected
    pixels = np.floor(np.clip((expected[0].double().numpy() + 1) * 127.5 + 0.5, 0, 255)).transpose(1, 2, 0)
    assert np.abs(image - pixels).max() <= 1


def test_refusals(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="belong to a generator"):
        build_bundle(tmp_path / "a", **{**HAIR_ONLY, "directions": tiny_bundle.parent / "directions"})
    with pytest.raises(InvalidInputError, match="unknown --storage 'int4': choose float32 or float16"):
        build_bundle(tmp_path / "a", **HAIR_ONLY, storage="int4")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(InvalidInputError, match="exists and is not a bundle"):
        build_bundle(tmp_path / "full", **HAIR_ONLY)
    with pytest.raises(InvalidInputError, match="exists and is not a bundle"):
        build_bundle(tmp_path / "full", **HAIR_ONLY, overwrite=True)
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    no_generator = {**HAIR_ONLY, "generator": tiny_bundle.parent / "g.safetensors", "kind": "discriminator"}
    with pytest.raises(OhloraError, match="kind 'discriminator' of weights for the network 'generator'"):
        build_bundle(tmp_path / "c", **no_generator)
    assert not (tmp_path / "c").exists()


def test_cards_list_a_parser_as_they_always_did() -> None:
    assert list(ParsingPart.model_fields) == [
        "file", "probe", "input_size", "classes", "architecture", "parity", "metrics",
    ]  # fmt: skip
