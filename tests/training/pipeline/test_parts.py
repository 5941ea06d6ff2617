"""What the pipeline adds to the stages: the portraits' truth, the network that labels, class maps, charts, settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ohlora.errors import InvalidInputError
from ohlora.io.images import encode_image
from ohlora.training.data.parsing_classes import HAIR
from ohlora.training.data.portraits import index, parameters_from_seeds, render
from ohlora.training.directions.reader import paint_portraits, sample_parameters
from ohlora.training.directions.recipes import ReaderConfig
from ohlora.training.pipeline import exhibits as charts
from ohlora.training.pipeline.exhibits import Exhibits
from ohlora.training.pipeline.maps import portrait_maps
from ohlora.training.pipeline.portrait_labels import ATTRIBUTES, NAMES, labels_of_seeds, shares, train_labeller, truth
from ohlora.training.pipeline.presets import PRESETS
from ohlora.training.pipeline.sections import PipelineSettings
from ohlora.training.pipeline.settings import as_yaml, load_settings, template
from ohlora.training.pipeline.stages import GRAPH
from ohlora.training.teachers.bundle import BundleTeacher

# --- truth -----------------------------------------------------------------------------------------------------------


def test_the_documented_shares_are_those_of_portraits() -> None:
    found = truth(sample_parameters(4000, 1)).mean(0)
    for attribute, share in zip(ATTRIBUTES, found, strict=True):
        assert abs(attribute.share - share) < 0.025, attribute.name


def test_an_attribute_is_what_the_table_says() -> None:
    person = parameters_from_seeds([0])
    person[:, index("fringe")] = 0.6
    person[:, index("hair_shade")] = 0.8
    person[:, index("hair_length")] = 0.9
    person[:, index("background_value")] = 0.9
    assert truth(person).tolist() == [[1, 1, 1, 1]]
    person[:, [index("hair_length"), index("lipstick")]] = 0.0  # bald: neither fringe nor fair hair to be seen
    person[:, index("background_value")] = 0.2
    assert truth(person).tolist() == [[0, 0, 0, 0]]
    with pytest.raises(InvalidInputError, match="no attribute 'beard'"):
        truth(person, ["beard"])


def test_labels_of_seeds_are_the_truth_of_these_portraits() -> None:
    labels = labels_of_seeds(30, 20, ("quality", "gender"))
    assert labels.numbers.tolist() == list(range(20))
    expected = truth(parameters_from_seeds(range(30, 50)), ("quality", "gender"))
    np.testing.assert_array_equal(np.stack([labels.of("quality"), labels.of("gender")], 1), expected)


def test_a_labeller_learns_and_is_the_same_every_time() -> None:
    config = ReaderConfig(size=32, width=4, pictures=320, held_out=100, epochs=4, batch_size=16, learning_rate=3e-3)
    network, figures = train_labeller(config)
    assert figures["quality"]["auroc"] > 0.8
    pictures = paint_portraits(sample_parameters(8, 5), 32)
    again, other = train_labeller(config)
    np.testing.assert_array_equal(shares(network, pictures), shares(again, pictures))
    assert other == figures
    assert shares(network, pictures).shape == (8, len(NAMES))


# --- class maps ------------------------------------------------------------------------------------------------------


def portraits(folder: Path, seeds: range) -> dict[int, Path]:
    made = render(parameters_from_seeds(seeds), 64)
    paths = {}
    for i, image in enumerate(made.images):
        paths[i] = folder / f"{i:06d}.jpg"
        paths[i].write_bytes(encode_image(image, "jpeg"))
    return paths


def test_portrait_maps_are_those_of_the_seeds_and_go_on(tmp_path: Path) -> None:
    images = portraits(tmp_path, range(50, 54))
    out = tmp_path / "faces"
    portrait_maps(dict(list(images.items())[:2]), 50, out)
    first = (out / "parsing_000001.png").stat().st_mtime_ns
    assert portrait_maps(images, 50, out) == 4
    assert (out / "parsing_000001.png").stat().st_mtime_ns == first
    expected = render(parameters_from_seeds(range(50, 54)), 224).parsing
    for number in images:
        found = cv2.imread(str(out / f"parsing_{number:06d}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found, expected[number])
        assert cv2.imread(str(out / f"face_{number:06d}.png")).shape == (224, 224, 3)


def test_a_hair_student_finds_hair_alone() -> None:
    made = render(parameters_from_seeds([3, 4]), 128)
    labels = BundleTeacher("demo", hair_only=True).labels(list(made.images))
    assert labels.parsing.shape == (2, 224, 224)
    assert set(np.unique(labels.parsing)) <= {0, HAIR}
    hair = render(parameters_from_seeds([3, 4]), 224).parsing == HAIR
    overlap = (hair & (labels.parsing == HAIR)).sum() / (hair | (labels.parsing == HAIR)).sum()
    assert overlap > 0.8
    from ohlora.errors import BundleError

    with pytest.raises(BundleError, match="parser"):
        BundleTeacher("demo", hair_only=False)


# --- charts ----------------------------------------------------------------------------------------------------------

Numbers = st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1, max_size=12)


@given(Numbers, Numbers)
@settings(max_examples=50, deadline=None)
def test_curves_are_drawings_within_their_frame(first: list[float | None], second: list[float | None]) -> None:
    shown = Exhibits()
    length = min(len(first), len(second))
    shown.curve("a < b & c", range(length), {"one": first[:length], "two": second[:length]}, "epoch")
    drawn = charts.curve(shown.curves[0])
    if all(v is None for v in first[:length] + second[:length]):
        assert drawn == ""
        return
    root = ElementTree.fromstring(drawn)
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert charts.LEFT - 1 <= x <= charts.WIDTH
            assert 0 <= y <= charts.HEIGHT


@given(st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), max_size=40))
@settings(max_examples=50, deadline=None)
def test_histograms_count_every_finite_value(values: list[float]) -> None:
    shown = Exhibits()
    shown.histogram("scores", values)
    finite = sum(v == v for v in values)
    if not finite:
        assert shown.histograms == []
        return
    assert sum(shown.histograms[0]["counts"]) == finite
    assert shown.histograms[0]["left_out"] == len(values) - finite
    ElementTree.fromstring(charts.histogram(shown.histograms[0]))


def test_a_histogram_of_values_that_hardly_differ_has_one_bin() -> None:
    shown = Exhibits()
    shown.histogram("scores", [0.0, 5e-324])
    assert (shown.histograms[0]["counts"], shown.histograms[0]["high"]) == ([2], 5e-324)
    ElementTree.fromstring(charts.histogram(shown.histograms[0]))


# --- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_are_valid_and_can_be_written_and_read(preset: str, tmp_path: Path) -> None:
    chosen = load_settings(PipelineSettings, PRESETS, preset=preset)
    for text in (as_yaml(chosen), template(chosen)):
        file = tmp_path / "settings.yaml"
        file.write_text(text)
        assert load_settings(PipelineSettings, PRESETS, file=file) == chosen


def test_the_documented_preset_holds_the_documented_numbers() -> None:
    chosen = load_settings(PipelineSettings, PRESETS, preset="documented")
    assert (chosen.sample_10k.count, chosen.sample_15k.count, chosen.labels_v1.count) == (10_000, 15_000, 2000)
    assert chosen.filter_v1.rules == ["gender_score>=0.7", "quality_score>=0.9"]
    assert chosen.filter_v3.rules == [
        "gender_score>=0.92",
        "quality_score>=0.9",
        "age_score<=0.008",
        "glass_score<=0.01",
    ]
    assert chosen.filter_v1.keep_labelled
    assert not chosen.filter_v3.keep_labelled
    v1: Any = chosen.finetune_v1.recipe("finetune_v1")
    assert (v1.epochs, v1.batch_size, v1.learning_rate, v1.mixing) == (39, 16, 1e-4, 0.9)
    age: Any = chosen.classifier_age_v3.recipe("classifier_age_v3")
    assert (age.threshold, age.learning_rate, age.folds, age.width) == (0.23, 2.5e-5, 5, 1.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("finetune_v1.epoch=3", r"finetune_v1: recipe v1: unknown setting 'epoch', did you mean 'epochs'"),
        ("finetune_v1.psi=7", r"finetune_v1: recipe v1: psi must be in \[0, 1\], got 7"),
        ("classifier_age_v3.folds=1", r"classifier_age_v3: folds must be at least 2"),
        ("classifier_age_v3.attribute=glass", r"classifier_age_v3: attribute cannot be set"),
        ("property_cnn.widht=2", r"property_cnn: unknown setting 'widht'"),
        ("filter_v1.rules=[beauty]", r"filter_v1.rules.0 cannot read the rule 'beauty'"),
        ("discriminator.stepps=3", r"discriminator: unknown setting 'stepps', did you mean 'steps'\?"),
        ("sample_10k.cuont=3", r"unknown setting 'sample_10k.cuont', did you mean 'count'\?"),
    ],
)
def test_wrong_fields_of_recipes_are_named(change: str, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        load_settings(PipelineSettings, PRESETS, preset="documented", changes=[change])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested more than 100 deep|more than"),
        ("a: 2001-99-99", "is no YAML of settings: month must be in 1"),
        ("a: " + "9" * 5000, "is no YAML of settings"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
                for old, new in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "more than 10,000 values",
        ),
        ("a: [1", "line 1 is no YAML"),
    ],
    ids=["deep", "recursive", "date", "digits", "aliases", "open"],
)
def test_yaml_that_parsers_fall_over_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_settings(PipelineSettings, PRESETS, file=tmp_path / "settings.yaml")
    assert len(str(caught.value)) < 400


def test_every_section_belongs_to_a_stage() -> None:
    used = {name for stage in GRAPH for name in stage.settings}
    assert used == set(PipelineSettings.model_fields) - {"preset", "skip", "machine"}
