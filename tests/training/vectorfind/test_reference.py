"""The search's parts against the reference vectors, and their edge cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ohlora.base.recipe import read_changes
from ohlora.errors import InvalidInputError
from ohlora.training.vectorfind.direction_test import correlation, figures, triples
from ohlora.training.vectorfind.gradient import RegressionNetwork
from ohlora.training.vectorfind.orthogonal import least_shifts, moments, refined
from ohlora.training.vectorfind.selection import extremes, group_names, groups_of, medians
from ohlora.training.vectorfind.settings import PRESETS, SearchSettings, preset
from ohlora.training.vectorfind.svm import fit_svm
from tests.support.golden_weights import draw

# Reference vectors


def test_selection_is_the_reference_in_every_case(golden: Path) -> None:
    data = np.load(golden / "cnn" / "top_bottom_selection.npz")
    cases = [name.removeprefix("score_") for name in data.files if name.startswith("score_")]
    assert len(cases) == 24
    for case in cases:
        name, group = case.rsplit("_", 1)
        largest, smallest = extremes(data[f"score_{case}"], 0.15)
        np.testing.assert_array_equal(largest, data[f"{name}_largest_{group}"])
        np.testing.assert_array_equal(smallest, data[f"{name}_smallest_{group}"])


def test_svm_reaches_the_reference_optimum_and_its_sign(golden: Path) -> None:
    data = np.load(golden / "cnn" / "svm_direction.npz")
    fitted = fit_svm(data["vectors"][data["largest_idx"]], data["vectors"][data["smallest_idx"]])
    np.testing.assert_allclose(fitted.coef, data["coef"][0], atol=2e-6)
    assert fitted.intercept == pytest.approx(float(data["intercept"][0]), abs=2e-6)
    assert float(fitted.direction @ data["direction"][0]) >= 0.9999
    # It points towards "smallest".
    assert fitted.decision(data["vectors"][data["smallest_idx"]]).mean() > 0


@pytest.mark.parametrize("space", ["w", "mapping_split1", "mapping_split2"])
def test_regression_network_and_its_gradient_are_the_reference(golden: Path, space: str) -> None:
    data = np.load(golden / "cnn" / f"gradient_nn_{space}.npz")
    vectors = data["mid_vector"]
    network = RegressionNetwork(vectors.shape[1])
    state = {}
    for key, value in network.state_dict().items():
        scale = 0.05 if value.ndim == 1 else float(np.sqrt(2 / np.prod(value.shape[1:])))
        state[key] = draw(key, tuple(value.shape), scale)
    network.load_state_dict(state)
    network.eval()
    with torch.no_grad():
        np.testing.assert_allclose(network(torch.from_numpy(vectors)).numpy(), data["output"], atol=2e-5)
    directions = network.runtime().directions(vectors)
    cosines = (directions * data["direction"]).sum(1) / np.linalg.norm(data["direction"], axis=1)
    assert cosines.min() >= 0.999999


# Selection and groups


def test_groups_are_in_the_documented_order() -> None:
    assert group_names(3) == ["hhh", "hhl", "hlh", "hll", "lhh", "lhl", "llh", "lll"]
    assert group_names(4)[:3] == ["hhhh", "hhhl", "hhlh"]
    assert group_names(4)[-1] == "llll"
    assert group_names(0) == ["all"]


def test_a_score_at_the_cut_off_is_high_and_a_missing_one_has_no_group() -> None:
    scores = np.array([[0.5, 0.1], [0.4, 0.2], [np.nan, 1.0]])
    assert groups_of(scores, (0.5, 0.2)).tolist() == [1, 2, -1]  # hl, lh
    assert groups_of(np.zeros((2, 0)), ()).tolist() == [0, 0]
    assert medians(np.array([[1.0], [np.nan], [3.0]])) == (2.0,)


@given(arrays(np.float32, st.integers(1, 60), elements=st.floats(-3, 3, width=16)), st.floats(0.01, 0.5))
def test_extremes_are_extreme(scores: np.ndarray, share: float) -> None:
    largest, smallest = extremes(scores, share)
    count = max(int(share * len(scores)), 1)
    assert len(largest) == len(smallest) == count
    assert (np.diff(largest) > 0).all()
    assert (np.diff(smallest) > 0).all()
    assert np.sort(scores[largest]).tolist() == np.sort(scores)[-count:].tolist()
    assert np.sort(scores[smallest]).tolist() == np.sort(scores)[:count].tolist()


def test_missing_scores_are_never_extreme() -> None:
    largest, smallest = extremes(np.array([np.nan, 1.0, 2.0, np.nan]), 0.5)
    assert largest.tolist() == [2]
    assert smallest.tolist() == [1]
    with pytest.raises(InvalidInputError, match="no scores"):
        extremes(np.full(3, np.nan), 0.2)


@given(st.integers(2, 40), st.integers(2, 12), st.integers(0, 10**6))
def test_svm_solves_its_own_optimality_condition(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.standard_normal((2, count, size))
    second += 0.5
    fitted = fit_svm(first, second)
    x = np.concatenate([first, second])
    y = np.concatenate([-np.ones(count), np.ones(count)])
    slack = np.maximum(0.0, 1.0 - y * fitted.decision(x)) * y
    # Gradient of |w|^2/2 + b^2/2 + sum slack^2 is zero.
    np.testing.assert_allclose(fitted.coef, 2 * (slack @ x), atol=1e-4)
    assert fitted.intercept == pytest.approx(2 * slack.sum(), abs=1e-4)


def test_fewer_samples_than_dimensions_give_the_same_optimum() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 15, 40))
    fitted = fit_svm(first, second + 0.3)
    x, y = np.concatenate([first, second + 0.3]), np.repeat([-1.0, 1.0], 15)
    slack = np.maximum(0.0, 1.0 - y * fitted.decision(x)) * y
    np.testing.assert_allclose(fitted.coef, 2 * (slack @ x), atol=1e-4)


# Orthogonal directions


def _linear_world(count: int = 4000, size: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    mixing, truth = rng.standard_normal((size, size)), rng.standard_normal((size, 4))
    vectors = (rng.standard_normal((count, size)) @ mixing).astype(np.float32)
    return vectors, vectors @ truth, truth


def test_shifts_move_one_score_by_one_and_the_others_not_at_all() -> None:
    vectors, scores, truth = _linear_world()
    shifts = least_shifts(moments([(vectors, scores)]), 0.0)
    np.testing.assert_allclose(shifts @ truth, np.eye(4), atol=1e-5)


def test_no_other_shift_of_the_same_effect_is_more_probable() -> None:
    vectors, scores, truth = _linear_world()
    found = moments([(vectors, scores)])
    shifts = least_shifts(found, 0.0)
    inverse = np.linalg.inv(found.covariance)
    rng = np.random.default_rng(1)
    null = np.linalg.svd(truth.T)[2][4:]  # directions that change no score
    for shift in shifts:
        other = shift + 0.1 * rng.standard_normal(len(null)) @ null
        assert shift @ inverse @ shift < other @ inverse @ other


def test_moments_do_not_depend_on_blocks_and_leave_missing_scores_out() -> None:
    vectors, scores, _ = _linear_world(600)
    scores = scores.copy()
    scores[::7, 0] = np.nan
    whole = moments([(vectors, scores)])
    parts = moments([(vectors[:100], scores[:100]), (vectors[100:], scores[100:])])
    assert whole.count == parts.count == 600 - 86
    np.testing.assert_allclose(whole.cross, parts.cross, rtol=1e-9, atol=1e-9)
    with pytest.raises(InvalidInputError, match="too few"):
        moments([(vectors[:5], scores[:5])])


def test_measured_leakage_is_divided_out() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((9, 3))
    shifts, history = refined(rng.standard_normal((3, 9)), lambda given: given @ truth, 1)
    assert np.abs(history[0] - np.diag(np.diag(history[0]))).max() > 0.1
    np.testing.assert_allclose(shifts @ truth, np.diag(np.diag(history[0])), atol=1e-9)


def test_scores_that_follow_each_other_are_refused() -> None:
    vectors, scores, _ = _linear_world()
    with pytest.raises(InvalidInputError, match="follow each other"):
        least_shifts(moments([(vectors, np.concatenate([scores, scores[:, :1]], 1))]), 0.0)


# The test of directions


def test_strengths_are_the_documented_fifty_in_order() -> None:
    strengths = triples(PRESETS["v7"])
    assert strengths.shape == (50, 3)
    for mouth in range(5):
        for eyes in range(2):
            for pose in range(5):
                row = strengths[10 * mouth + 5 * eyes + pose]
                assert row.tolist() == [
                    (-1.2, 1.2)[eyes],
                    (-1.8, -0.9, 0, 0.9, 1.8)[mouth],
                    (-1.8, -1.2, -0.6, 0, 0.6)[pose],
                ]


def test_figures_find_effects_and_leakage_of_linear_scores() -> None:
    strengths = triples(PRESETS["v8"])
    effects = np.array([[-2.0, 0.2, 0.0], [0.0, -1.0, 0.1], [0.0, 0.0, -0.5]])
    found = figures(strengths, strengths @ effects + 3.0, np.array([1.0, 2.0, 0.5]))
    np.testing.assert_allclose(found.effects, effects / np.array([1.0, 2.0, 0.5]), atol=1e-9)
    np.testing.assert_allclose(found.leakage, [(0.1 / 2) / 2.0, (0.2 / 2) / 0.5, 0.0], atol=1e-9)
    assert found.correlation[0] == pytest.approx(-1.0)
    assert found.passes((0.9, 0.9, 0.9))
    assert not found.passes((0.9, 0.9995, 0.9))


def test_correlation_of_what_does_not_vary_or_is_missing_is_zero() -> None:
    assert correlation(np.arange(4.0), np.ones(4)) == 0.0
    assert correlation(np.arange(4.0), np.array([1.0, np.nan, np.nan, 2.0])) == 0.0
    assert correlation(np.arange(4.0), np.array([0.0, np.nan, 2.0, 3.0])) == pytest.approx(1.0)


# Settings


def test_presets_are_the_documented_versions() -> None:
    v6, v7, v8 = PRESETS["v6"], PRESETS["v7"], PRESETS["v8"]
    assert (v6.space, v6.samples, v6.share, v6.limits) == ("z", 500_000, 0.15, (0.75, 0.77, 0.80))
    assert v6.eyes == (-1.2, 1.8)
    assert (v7.space, v7.samples, v7.limits, v7.codes, v7.stop_after) == ("w", 80_000, (0.92, 0.88, 0.92), 2400, 80)
    assert v7.cutoffs == (-0.2709, 0.3052, 0.0742)
    assert (len(v8.groups), v8.samples, v8.share, v8.codes, v8.stop_after) == (4, 240_000, 0.2, 2000, 60)
    mixed, second = PRESETS["v9-mixed"], PRESETS["v9-svm-ms2"]
    assert (mixed.space, mixed.methods, mixed.samples) == ("mapping_split1", ("gradient", "svm", "svm"), 160_000)
    assert (second.space, second.samples) == ("mapping_split2", 240_000)
    assert (mixed.report_layout, second.report_layout, PRESETS["v9-gradient"].report_layout) == (
        "mixed",
        "svm",
        "gradient",
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.6}, "share"),
        ({"methods": ("svm", "svm")}, "methods"),
        ({"groups": ("hair_color",), "cutoffs": (1.0, 2.0)}, "cutoffs"),
        ({"eyes": (1.0, 1.0)}, "eyes"),
        ({"strength": (1.0, -1.0, 1.0)}, "strength"),
        ({"space": "v"}, "space must be z, w, mapping_split1 or mapping_split2"),
        ({"samples": 0}, "samples"),
    ],
)
def test_settings_that_make_no_search_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SearchSettings(**changes)  # type: ignore[arg-type]


def test_settings_from_the_command_line() -> None:
    changes = read_changes(
        SearchSettings, ["groups=hair_color,hair_length", "share=0.1", "tsne=true", "gradient.epochs=3", "cutoffs="]
    )
    made = preset("v7", **changes)
    assert made.groups == ("hair_color", "hair_length")
    assert (made.share, made.tsne, made.gradient.epochs, made.cutoffs) == (0.1, True, 3, ())
    with pytest.raises(InvalidInputError, match="did you mean 'samples'"):
        read_changes(SearchSettings, ["sample=3"])
    with pytest.raises(InvalidInputError, match="share must be a number, got 'much'"):
        read_changes(SearchSettings, ["share=much"])
    with pytest.raises(InvalidInputError, match="did you mean 'v9-mixed'"):
        preset("v9-mix")
