"""Prediction with ensembles, merged tables, filters, monitoring; score CNNs and their re-estimated scores."""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ohlora.errors import InvalidInputError, OhloraError
from ohlora.scores.table import PROPERTY_COLUMNS, ScoreTable, read_score_table, write_score_table
from ohlora.training import checkpoints
from ohlora.training.cnn import scoring
from ohlora.training.cnn.ensemble import Ensemble, Monitor, find_models
from ohlora.training.cnn.filtering import filter_pictures, select
from ohlora.training.cnn.pictures import read_picture
from ohlora.training.cnn.recipes import FilterRecipe, Rule, filter_recipe, parse_rule, score_cnn_recipe
from ohlora.training.cnn.regression import merge_cnns, train_score_cnn
from ohlora.training.cnn.scoring import merge, predict, rescore, write_comparison
from ohlora.training.nets.score_cnns import ATTRIBUTES, at_cnn_size
from ohlora.training.weights.published import published_state
from ohlora.training.weights.score_cnns_keys import make
from tests.support.score_cnn_pictures import picture, truth, write_pictures, write_scores, write_v3_labels

COUNT = 40


def header(path: Path) -> str:
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return text.splitlines()[0]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "images", COUNT)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random classifiers, 4 x 5, under both documented names and in both formats."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for attribute in ATTRIBUTES:
        for k in range(5):
            network = make(attribute, 0.02)
            if attribute == "gender":
                checkpoints.save(network, folder / f"gender_model_{k}.safetensors", "cnn-gender")
            else:
                torch.save(published_state(network), folder / f"cnn_ohlora_v3_{attribute}_model_{k}.pt")
    return folder


# ---- prediction ----


def test_predictions_have_the_published_layout(images: Path, models: Path, tmp_path: Path, shared: Path) -> None:
    labels = write_v3_labels(tmp_path / "labels.csv", 6)
    result = predict("age", images, models, tmp_path / "out", labels=labels)
    published = shared / "data" / "ohlora" / "v3" / "generate_dataset" / "cnn_inference_result" / "age.csv.gz"
    assert header(result.table) == header(published)
    table = read_score_table(result.table)
    assert table.numbers.tolist() == list(range(6, COUNT))
    ensemble = Ensemble.load(models, "age")
    pictures = np.stack([read_picture(images / f"{n:06d}.png") for n in table.numbers])
    wanted = ensemble.score(pictures)
    assert wanted.shape == (COUNT - 6, 5)
    assert np.abs(table.values[:, 1:] - np.round(wanted, 4)).max() <= 1e-4
    assert np.abs(table.values[:, 0] - np.round(wanted.mean(1), 4)).max() <= 1e-4
    assert table.paths[0].endswith("images/000006.png")


def test_an_interrupted_prediction_gives_the_same_table(
    images: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "EVALUATION_BATCH", 16)
    monkeypatch.setattr(scoring, "SAVE_SECONDS", 0)
    whole = predict("glass", images, models, tmp_path / "whole").table.read_bytes()

    def stop(count: int) -> None:
        seen.append(count)
        if len(seen) == 3:
            raise KeyboardInterrupt

    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        predict("glass", images, models, tmp_path / "parts", advance=stop)
    assert not (tmp_path / "parts" / "glass.csv").exists()
    seen.clear()
    result = predict("glass", images, models, tmp_path / "parts", advance=lambda count: seen.append(count))
    assert seen == [16, 16, 8]  # what was there, then the rest
    assert result.table.read_bytes() == whole


def test_a_bad_picture_is_reported(models: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "images", 5)
    (folder / "000003.png").write_bytes(b"no picture")
    result = predict("glass", folder, models, tmp_path / "out")
    assert list(result.failed) == [3]
    assert "000003.png" in result.failed[3]
    assert result.pictures == 4
    again = predict("glass", folder, models, tmp_path / "out")
    assert again == result


def test_models_are_found_by_either_name(models: Path, tmp_path: Path) -> None:
    assert [path.name for path in find_models(models, "age")][:2] == [
        "cnn_ohlora_v3_age_model_0.pt",
        "cnn_ohlora_v3_age_model_1.pt",
    ]
    with pytest.raises(InvalidInputError, match="train them with `ohlora train classifier glass`"):
        find_models(tmp_path, "glass")
    (tmp_path / "glass_model_0.pt").touch()
    (tmp_path / "glass_model_2.pt").touch()
    with pytest.raises(InvalidInputError, match="up to 2, but none with number 1"):
        find_models(tmp_path, "glass")
    (tmp_path / "cnn_ohlora_v3_glass_model_0.pt").touch()
    with pytest.raises(InvalidInputError, match="keep one set of models"):
        find_models(tmp_path, "glass")


def test_merged_tables_have_the_published_layout(images: Path, models: Path, tmp_path: Path, shared: Path) -> None:
    data = shared / "data" / "ohlora"
    labels = write_v3_labels(tmp_path / "labels.csv", 6)
    tables = {a: predict(a, images, models, tmp_path / "out", labels=labels).table for a in ATTRIBUTES}
    four = merge(images, tables, tmp_path / "out", labels=labels)
    assert four.name == "scores_all_15k.csv"
    assert header(four) == header(data / "v3" / "generate_dataset" / "scores_all_15k.csv.gz")
    assert four.read_text().splitlines()[1].split(",")[3:] == ["0.0", "0.0", "0.0", "1.0"]
    table = read_score_table(four)
    assert table.numbers.tolist() == list(range(COUNT))
    assert table.column("glass_score")[:6].tolist() == truth(6).tolist()
    predicted = read_score_table(tables["glass"]).column("property_glass_final_score")
    assert table.column("glass_score")[6:].tolist() == predicted.tolist()
    two = merge(images, {a: tables[a] for a in ("quality", "gender")}, tmp_path / "out", labels=labels)
    assert two.name == "all_image_quality_and_gender.csv"
    assert header(two) == header(data / "v1" / "cnn" / "all_image_quality_and_gender.csv.gz")
    # Without labels the labelled pictures have no score.
    assert np.isnan(read_score_table(merge(images, tables, tmp_path / "none.csv")).values[:6]).all()
    few = write_pictures(tmp_path / "few", 10)
    with pytest.raises(InvalidInputError, match=r"rows of .* have no picture in"):
        merge(few, tables, tmp_path / "few.csv")


# ---- filters ----


def test_filters_give_the_documented_numbers(shared: Path) -> None:
    data = shared / "data" / "ohlora"
    v1 = read_score_table(data / "v1" / "cnn" / "all_image_quality_and_gender.csv.gz")
    kept = select(v1, filter_recipe("v1")).kept
    assert (len(v1), kept.sum(), kept[:2000].sum(), kept[2000:].sum()) == (10_000, 4703, 1041, 3662)
    scored = read_score_table(data / "v1" / "property_score_results" / "all_scores_v2.csv.gz")
    assert np.array_equal(v1.numbers[kept], scored.numbers)
    v3 = read_score_table(data / "v3" / "generate_dataset" / "scores_all_15k.csv.gz")
    recipe = filter_recipe("v3")
    assert select(v3, replace(recipe, first_number=0)).kept.sum() == 6497
    selection = select(v3, recipe)
    assert selection.kept.sum() == 4930
    hairstyle = read_score_table(data / "v3" / "property_score_cnn" / "all_scores_ohlora_v3.csv.gz")
    assert np.array_equal(v3.numbers[selection.kept], hairstyle.numbers)
    # The labelled pictures by their table instead of by number.
    labelled = select(v3, replace(recipe, first_number=0), np.arange(2000))
    assert np.array_equal(labelled.kept, selection.kept)
    assert selection.rejects["number below 2000"] == 2000
    assert selection.only["number below 2000"] == 6497 - 4930


def scored(images: Path, path: Path) -> Path:
    count = len(list(images.glob("*.png")))
    values = np.stack([np.linspace(0, 1, count), np.where(np.arange(count) % 4, 0.95, 0.5)], 1)
    values[1, 0] = np.nan
    paths = tuple(str(images / f"{n:06d}.png") for n in range(count))
    write_score_table(
        path, ScoreTable(np.arange(count), ("gender_score", "quality_score"), values, paths), decimals=None
    )
    return path


def test_filter_copies_what_passes(images: Path, tmp_path: Path) -> None:
    table = scored(images, tmp_path / "scores.csv")
    result = filter_pictures(table, images, tmp_path / "kept", filter_recipe("v1"))
    wanted = [n for n in range(COUNT) if n / (COUNT - 1) >= 0.7 and n % 4]
    assert sorted(path.name for path in (tmp_path / "kept").glob("*.png")) == [f"{n:06d}.png" for n in wanted]
    assert (tmp_path / "kept" / f"{wanted[0]:06d}.png").read_bytes() == (images / f"{wanted[0]:06d}.png").read_bytes()
    assert (result.pictures, result.kept, result.copied, result.there) == (COUNT, len(wanted), len(wanted), 0)
    listed = read_score_table(result.table)
    assert listed.numbers.tolist() == wanted
    assert Path(listed.paths[0]).parent == tmp_path / "kept"
    low = {n for n in range(COUNT) if n / (COUNT - 1) < 0.7 or n == 1}
    assert result.rejects == {"gender_score >= 0.7": len(low), "quality_score >= 0.9": 10, "no score": 1}
    assert result.only["quality_score >= 0.9"] == len([n for n in range(0, COUNT, 4) if n not in low])
    # Again: nothing to copy. Another rule: what does not belong there any more goes.
    assert filter_pictures(table, images, tmp_path / "kept", filter_recipe("v1")).copied == 0
    fewer = FilterRecipe((parse_rule("gender_score>=0.9"),))
    again = filter_pictures(table, images, tmp_path / "kept", fewer, link=True)
    assert len(list((tmp_path / "kept").glob("*.png"))) == again.kept == 4
    assert again.there == 3  # every fourth was not there: linked
    assert again.copied == 1
    linked = next(n for n in range(36, 40) if n % 4 == 0)
    assert (tmp_path / "kept" / f"{linked:06d}.png").samefile(images / f"{linked:06d}.png")


def test_filter_refuses_what_cannot_be(images: Path, tmp_path: Path) -> None:
    table = scored(images, tmp_path / "scores.csv")
    with pytest.raises(InvalidInputError, match=r"none of 40 pictures passes .* gender_score >= 2 40"):
        filter_pictures(table, images, tmp_path / "out", FilterRecipe((Rule("gender_score", True, 2),)))
    with pytest.raises(InvalidInputError, match="no column 'age_score'"):
        filter_pictures(table, images, tmp_path / "out", filter_recipe("v3"))
    with pytest.raises(InvalidInputError, match="where all of them are"):
        filter_pictures(table, images, images, filter_recipe("v1"))
    assert not (tmp_path / "out").exists()
    foreign = write_pictures(tmp_path / "foreign", 2)
    with pytest.raises(InvalidInputError, match=r"holds other pictures, 000000.png for one"):
        filter_pictures(table, images, foreign, filter_recipe("v1"))
    for text in ("gender", "gender>0.5", "gender_score>=high", ">=0.5"):
        with pytest.raises(InvalidInputError, match="cannot read the rule"):
            parse_rule(text)


# ---- monitoring ----


def test_monitor_scores_any_size(models: Path, tmp_path: Path) -> None:
    monitor = Monitor.load(models)
    assert monitor.attributes == ATTRIBUTES
    small = np.stack([picture(n, bool(n % 2)) for n in range(3)])
    scores = monitor.score(small)
    assert {a: v.shape for a, v in scores.items()} == dict.fromkeys(ATTRIBUTES, (3, 5))
    full = torch.from_numpy(small).permute(0, 3, 1, 2).float() / 255
    network = checkpoints.load("cnn-gender", models / "gender_model_2.safetensors")
    with torch.no_grad():
        wanted = network(at_cnn_size(full))[:, 0].numpy()
    assert np.abs(scores["gender"][:, 2] - wanted).max() <= 6e-5
    monitor.write(tmp_path / "inference_test_result.csv", scores)
    with (tmp_path / "inference_test_result.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:6] == ["img_no", *(f"{a}_score" for a in ATTRIBUTES), "gender_score_cnn_0"]
    assert len(rows) == 3
    assert len(rows[0]) == 1 + 4 + 20
    assert float(rows[1]["age_score"]) == round(sum(float(rows[1][f"age_score_cnn_{k}"]) for k in range(5)) / 5, 4)
    assert Monitor.means(scores)["age"] == pytest.approx(scores["age"].mean())
    with pytest.raises(InvalidInputError, match="uint8 pictures"):
        monitor.score(small.astype(np.float32))
    with pytest.raises(InvalidInputError, match="train them with"):
        Monitor.load(tmp_path)


def test_pictures_are_resized_as_generated_ones_are(tmp_path: Path) -> None:
    from ohlora.io.images import encode_image

    rng = np.random.default_rng(0)
    for size in (64, 400):
        image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
        (tmp_path / "a.png").write_bytes(encode_image(image, "png"))
        wanted = at_cnn_size(torch.from_numpy(image).permute(2, 0, 1)[None].float())[0].permute(1, 2, 0).numpy()
        assert np.abs(read_picture(tmp_path / "a.png") - wanted).max() <= 1.01
    (tmp_path / "b.png").write_bytes(encode_image(image[:200], "png"))
    with pytest.raises(OhloraError, match="400 x 200 pixels, score CNNs see square faces"):
        read_picture(tmp_path / "b.png")


# ---- score CNNs ----


def small(name: str, **changes: Any) -> Any:
    return score_cnn_recipe(name, **{"width": 0.02, "epochs": 2, "batch_size": 8, "learning_rate": 1e-3} | changes)


def test_property_cnn(images: Path, tmp_path: Path, shared: Path) -> None:
    data = shared / "data" / "ohlora" / "v1"
    table = write_scores(tmp_path / "scores.csv", COUNT, PROPERTY_COLUMNS)
    seen: list[dict[str, Any]] = []
    result = train_score_cnn(images, table, tmp_path / "out", small("property"), report=seen.append)
    out = tmp_path / "out"
    assert header(out / "train_log_v2_cnn.csv") == header(data / "property_score_cnn" / "train_log_v2_cnn.csv")
    validation = out / "train_log_v2_cnn_val_log.csv"
    assert header(validation) == header(data / "property_score_cnn" / "train_log_v2_cnn_val_log.csv.gz")
    rows = list(csv.DictReader(validation.open(newline="")))
    assert len(rows) == 2 * 4
    assert rows[0]["img_path"].startswith("images/0")
    number = int(Path(rows[0]["img_path"]).stem)
    assert float(rows[0]["eyes_score_label"]) == round(float(truth(COUNT)[number] * 2 - 1), 4)
    assert result.loss == min(row["loss"] for row in seen)
    assert (result.pictures, result.epochs, result.dropped, result.without_row) == (COUNT, 2, 0, 0)
    assert result.published.name == "stylegan_gen_fine_tuned_v2_cnn.pth"
    # The kept weights are the measured ones.
    log = list(csv.DictReader((out / "train_log_v2_cnn.csv").open(newline="")))
    made = rescore(images, result.published, tmp_path / "scores", scores=table)
    again = read_score_table(made.table)
    best = [row for row in rows if row["epoch"] == str(result.best_epoch)]
    for row in best:
        place = again.numbers.tolist().index(int(Path(row["img_path"]).stem))
        assert again.values[place, 0] == pytest.approx(float(row["eyes_score_output"]), abs=2e-4)
    assert float(log[result.best_epoch]["val_loss_except_back_std"]) == round(result.loss, 4)
    # Nothing is left to do.
    done = train_score_cnn(images, table, out, small("property"), report=lambda row: pytest.fail("trained again"))
    assert done == result
    write_scores(tmp_path / "fewer.csv", COUNT - 1, PROPERTY_COLUMNS)
    with pytest.raises(InvalidInputError, match=r"training for property with other pictures .*: choose another --out"):
        train_score_cnn(images, tmp_path / "fewer.csv", out, small("property"))


def test_rescored_tables_have_the_published_layout(images: Path, tmp_path: Path, shared: Path) -> None:
    data = shared / "data" / "ohlora" / "v1" / "property_score_results"
    table = write_scores(tmp_path / "scores.csv", COUNT - 3, PROPERTY_COLUMNS)
    torch.manual_seed(0)
    checkpoints.save(make("property", 0.02), tmp_path / "p.safetensors", "cnn-property")
    result = rescore(images, tmp_path / "p.safetensors", tmp_path / "out", scores=table)
    assert header(result.table) == header(data / "all_scores_v2_cnn.csv.gz")
    assert result.comparison is not None
    assert header(result.comparison) == header(data / "compare" / "all_scores_v2_vs_cnn.csv.gz")
    assert result.pictures == COUNT
    assert len(result.comparison.read_text().splitlines()) == COUNT - 3 + 1
    assert set(result.correlations) == set(PROPERTY_COLUMNS)
    # The published comparison, from the two published tables.
    before, after = (read_score_table(data / f"all_scores_{name}.csv.gz") for name in ("v2", "v2_cnn"))
    write_comparison(tmp_path / "compare.csv", before, after)
    wanted = gzip.decompress((data / "compare" / "all_scores_v2_vs_cnn.csv.gz").read_bytes()).decode()
    assert (tmp_path / "compare.csv").read_text() == wanted


def test_hairstyle_cnn_and_merged(images: Path, tmp_path: Path, shared: Path) -> None:
    data = shared / "data" / "ohlora" / "v3" / "property_score_cnn" / "train_logs"
    table = write_scores(tmp_path / "scores.csv", COUNT, ("hairstyle_score",))
    result = train_score_cnn(images, table, tmp_path / "out", small("hairstyle"))
    made = tmp_path / "out"
    for name, published in (("train_log.csv", "train_log.csv"), ("valid_log.csv", "valid_log.csv.gz")):
        assert header(made / f"property_score_cnn_{name}") == header(data / f"property_score_cnn_{published}")
    assert result.published.name == "ohlora_v3_hairstyle_property_cnn.pth"
    torch.manual_seed(1)
    checkpoints.save(make("property", 0.03), tmp_path / "p.safetensors", "cnn-property")
    merged = merge_cnns(tmp_path / "p.safetensors", result.published, made)
    image = torch.rand(2, 3, 256, 256)
    both = checkpoints.load("cnn-merged", merged)(image)
    assert both.shape == (2, 8)
    assert torch.equal(both[:, :7], checkpoints.load("cnn-property", tmp_path / "p.safetensors")(image))
    assert torch.equal(both[:, 7:], checkpoints.load("cnn-hairstyle", result.model)(image))
    assert torch.equal(both, checkpoints.load("cnn-merged", made / "ohlora_v3_merged_property_cnn.pth")(image))
    eight = rescore(images, merged, tmp_path / "eight", kind="merged")
    assert read_score_table(eight.table).columns == (*PROPERTY_COLUMNS, "hairstyle_score")


def test_empty_cells(images: Path, tmp_path: Path) -> None:
    path = write_scores(tmp_path / "scores.csv", 20, ("hairstyle_score",))
    table = read_score_table(path)
    table.values[[3, 11], 0] = np.nan
    write_score_table(path, table)
    with pytest.raises(
        InvalidInputError, match=r"2 of 20 pictures have an empty cell in .*: number 3, 11. Score them again"
    ):
        train_score_cnn(images, path, tmp_path / "out", small("hairstyle"))
    notes: list[str] = []
    recipe = small("hairstyle", missing="drop", epochs=1)
    result = train_score_cnn(images, path, tmp_path / "out", recipe, note=notes.append)
    assert (result.pictures, result.dropped, result.without_row) == (18, 2, COUNT - 20)
    assert [note.split()[0] for note in notes] == ["20", "2"]


def test_a_score_cnn_resumes_to_the_same_weights(images: Path, tmp_path: Path) -> None:
    table = write_scores(tmp_path / "scores.csv", COUNT, ("hairstyle_score",))
    recipe = small("hairstyle", epochs=3)
    whole = train_score_cnn(images, table, tmp_path / "whole", recipe)
    seen: list[int] = []

    def stop(row: dict[str, Any]) -> None:
        seen.append(row["epoch"])
        if row["epoch"] in (0, 2) and seen.count(row["epoch"]) == 1:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_score_cnn(images, table, tmp_path / "parts", recipe, report=stop)
    again = train_score_cnn(images, table, tmp_path / "parts", recipe, report=stop)
    assert seen == [0, 1, 2]
    first, second = (torch.load(r.published, weights_only=True) for r in (whole, again))
    assert all(torch.equal(first[key], second[key]) for key in first)
    for name in ("property_score_cnn_train_log.csv", "property_score_cnn_valid_log.csv"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()
    assert json.dumps(again.figures) == json.dumps(whole.figures)
