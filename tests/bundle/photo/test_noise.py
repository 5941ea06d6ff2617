"""Another draw of the frozen noise."""

from __future__ import annotations

import numpy as np
import pytest

from ohlora.bundle.photo.fill_graph import initializer_arrays
from ohlora.bundle.photo.noise import drawn_noise
from ohlora.bundle.photo.reference import Reference
from ohlora.bundle.photo.rewrites import mapping_arrays, synthesis_arrays
from ohlora.errors import EngineError, InvalidInputError
from tests.support.random_faces import SMALL, small_state

onnx = pytest.importorskip("onnx")


def graph(state: dict[str, np.ndarray]) -> bytes:
    from ohlora.export.graphs.mobilestylegan import synthesis_graph

    return bytes(synthesis_graph(synthesis_arrays(state, SMALL, 64), SMALL, 64).SerializeToString())


def test_planes_are_drawn_anew_on_their_own_scale() -> None:
    state = small_state()
    model = graph(state)
    planes = initializer_arrays(model, ".noise")
    assert len(planes) == 7
    for name, plane in planes.items():
        np.testing.assert_array_equal(plane, state[name])
    changed = drawn_noise(model, 3)
    assert changed == drawn_noise(model, 3)
    assert changed != drawn_noise(model, 4)
    fresh = initializer_arrays(changed, ".noise")
    for name, plane in planes.items():
        assert not np.array_equal(fresh[name], plane)
        if plane.size >= 64:
            assert np.std(fresh[name]) == pytest.approx(float(np.sqrt(np.mean(plane**2))), rel=0.3)
    before, after = (onnx.load_from_string(data) for data in (model, changed))
    for tensor in before.graph.initializer:
        if tensor.name not in planes:
            assert tensor in after.graph.initializer
    assert before.graph.node == after.graph.node


def test_the_graph_draws_with_them() -> None:
    from ohlora.export.graphs.from_torch import run_graph

    state = small_state()
    changed = drawn_noise(graph(state), 0)
    state |= initializer_arrays(changed, ".noise")
    wp = np.random.default_rng(0).standard_normal((1, SMALL.layers, SMALL.w_size)).astype(np.float32)
    made = run_graph(onnx.load_from_string(changed), {"wp": wp})[0][0]
    assert np.abs(made.astype(int) - Reference(state, SMALL, wp[0]).levels(64)).max() <= 1


def test_what_has_no_noise() -> None:
    from ohlora.export.graphs.mobilestylegan import mapping_graph

    model = mapping_graph(mapping_arrays(small_state(), SMALL), SMALL).SerializeToString()
    with pytest.raises(EngineError, match="no frozen noise"):
        drawn_noise(model, 0)
    with pytest.raises(EngineError, match="not an ONNX model"):
        drawn_noise(b"\xff" * 9, 0)
    with pytest.raises(InvalidInputError, match="0 or more, got -1"):
        drawn_noise(graph(small_state()), -1)
