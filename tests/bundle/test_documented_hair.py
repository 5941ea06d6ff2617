"""The hair finder fed as documented: made of the bundle's own graph when it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the train extra (onnx) makes the models these tests run")

from ohlora.base.values import Ombre
from ohlora.bundle import Bundle
from ohlora.bundle.documented_hair import documented_finder, documented_side
from ohlora.bundle.write import new_bundle
from ohlora.engines import open_engine
from ohlora.engines.model_file import read_model_file
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.sources import bundle_source
from ohlora.kernels.ombre import prepare_hair
from ohlora.photos.heads import HeadMask, dye_heads
from ohlora.render.renderer import Renderer
from tests.support.small_models import enlarging_hair_model, hair_model


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_larger_images_give_maps_of_the_same_size_by_nearest_sampling(tmp_path: Path, backend: str) -> None:
    pytest.importorskip(backend)
    model = read_model_file(enlarging_hair_model(tmp_path / "hair.onnx", 56))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    # The same weights with images of 64 px, whose maps are 64 wide: each pixel of them twice.
    with open_engine(enlarging_hair_model(tmp_path / "whole.onnx", 64), backend="onnxruntime") as whole:
        features = whole(image=images)["hair"][:, ::2, ::2]
    index = np.arange(56) * 32 // 56
    with open_engine(documented_finder(model, 56), backend=backend) as engine:
        hair = engine(image=images)["hair"]
        assert hair.shape == (2, 56, 56)
        assert np.abs(hair - features[:, index][:, :, index]).max() < 1e-5
        assert engine.model_sha256 != model.sha256


def test_graphs_that_cannot_be_fed_so_are_refused(tmp_path: Path) -> None:
    plain = read_model_file(hair_model(tmp_path / "hair.onnx", size=56))
    with pytest.raises(EngineError, match=r"hair.onnx cannot be fed 64x64 images .*leave --compat out"):
        documented_finder(plain, 56)
    with pytest.raises(EngineError, match="100x100 images has no documented form"):
        documented_side(100)
    with Bundle.open("demo").hair_engine("onnxruntime", "fp32", 1, "documented") as engine:
        assert [tensor.row_shape for tensor in engine.spec.tensors] == [(256, 256, 3), (224, 224)]
    with pytest.raises(EngineError, match="computes in fp32, not bf16"):
        Bundle.open("demo").hair_engine("openvino", "bf16", input="documented")
    with pytest.raises(InvalidInputError, match="unknown compat 'published': choose documented"):
        Renderer("demo", compat="published")  # type: ignore[arg-type]


def test_built_engines_and_exports_hold_the_other_finder(tmp_path: Path) -> None:
    demo = Bundle.open("demo")
    setting: dict[str, Any] = {"device": 0, "stream": 0, "precision": "fp32", "engines": tmp_path}
    with pytest.raises(InvalidInputError, match=r"TensorRT engines.*leave --engines or --compat out"):
        demo.device_engine("hair", input="documented", **setting)
    with new_bundle(tmp_path / "fed", start=demo) as draft:
        draft.hair = demo.hair_part().model_copy(update={"input": "documented"})
    fed = Bundle.open(tmp_path / "fed")
    assert fed.hair_model()[1] == 256
    with pytest.raises(InvalidInputError, match="TensorRT engines"):
        fed.device_engine("hair", **setting)
    with pytest.raises(InvalidInputError, match=r"bundle 'demo' feeds its hair finder as documented.*bundle\.json"):
        bundle_source(tmp_path / "fed", (256, 256))


def test_hair_without_a_hair_row_is_dyed_where_the_documented_system_did() -> None:
    image = np.full((16, 16, 3), 120, np.uint8)
    hair = np.full((1, 16, 16), 0.85, np.float32)
    mask = prepare_hair(hair, (16, 16))
    usual, documented = HeadMask(0, 0, mask), HeadMask(0, 0, mask, unweighted=True)
    assert (usual.has_hair, documented.has_hair) == (False, True)
    assert np.array_equal(dye_heads(image, [usual], Ombre(0.5)), image)
    assert (dye_heads(image, [documented], Ombre(0.5)) != image).any(2).all(), "at every height"
    nothing = HeadMask(0, 0, prepare_hair(hair * 0, (16, 16)), unweighted=True)
    assert not nothing.has_hair
