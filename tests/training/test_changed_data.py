"""Every training: content decides whose run a folder holds, and one process works in it at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import cv2
import pytest

pytest.importorskip("torch")
pytest.importorskip("lightning")

from ohlora.base.atomic import make_folder
from ohlora.errors import InvalidInputError
from ohlora.training.cnn.classifier import train_classifier
from ohlora.training.cnn.recipes import classifier_recipe
from ohlora.training.finetune.discriminator_start import train_discriminator
from ohlora.training.finetune.recipes import DiscriminatorStart
from ohlora.training.finetune.run import run_recipe
from ohlora.training.gan import loop as gan
from ohlora.training.gan.config import Phase
from ohlora.training.gan.data import FolderSource
from ohlora.training.hairzoo import loop as hairzoo
from ohlora.training.hairzoo.config import ZooConfig
from ohlora.training.loop.contents import Contents
from ohlora.training.loop.distributed import make_fabric
from ohlora.training.loop.run_folder import RunFolder, locked_folder
from ohlora.training.students.distill import run as distill
from ohlora.training.students.parsing.distill import run as distill_parsing
from ohlora.training.students.recipes import ParsingConfig
from ohlora.training.vectorfind.search import run_search
from tests.support import hairzoo_sets
from tests.support.finetune_sets import make_inputs, short
from tests.support.gan_pictures import tiny_recipe
from tests.support.score_cnn_pictures import write_pictures, write_v3_labels
from tests.support.small_distillations import SHORT, TINY, write_portraits


@dataclass
class Case:
    """train: the command, in a folder, resuming or not. changed: a file that it reads."""

    train: Callable[[Path, bool], Any]
    changed: Path


def hair(folder: Path) -> Case:
    write_portraits(folder, [64] * 6)
    config = replace(TINY, **SHORT | {"phases": ((64, 1),)})
    return Case(
        lambda out, resume: distill([folder], out, config, resume=resume, accelerator="cpu"),
        folder / "hair_soft" / "real2.png",
    )


def parsing(folder: Path) -> Case:
    write_portraits(folder, [64] * 6)
    config = ParsingConfig(**SHORT | {"phases": ((64, 1),)}, mix=None)
    return Case(
        lambda out, resume: distill_parsing([folder], out, config, resume=resume, accelerator="cpu"),
        folder / "parsing11" / "real2.png",
    )


def zoo(folder: Path) -> Case:
    pytest.importorskip("segmentation_models_pytorch")
    hairzoo_sets.celeb(folder, 12)
    config = ZooConfig(
        encoder_type="tu-test_efficientnet",
        decoder_type="Linknet",
        image_size=64,
        epochs=1,
        batch_size=2,
        scheduler="CosineAnnealingLR",
    )
    return Case(
        lambda out, resume: hairzoo.run(config, [folder], out, resume=resume, accelerator="cpu"),
        next((folder / "masks").iterdir()),
    )


def classifier(folder: Path) -> Case:
    images = write_pictures(folder / "images", 24)
    labels = write_v3_labels(folder / "labels.csv", 24)
    recipe = classifier_recipe("v3", "glass", width=0.03, folds=2, epochs=1, batch_size=8, threshold=10.0)
    fabric = make_fabric("cpu")
    return Case(
        lambda out, resume: train_classifier("glass", images, labels, out, recipe, resume=resume, fabric=fabric),
        images / "000005.png",
    )


def generator(folder: Path) -> Case:
    write_portraits(folder, [16] * 6)
    phase = Phase(16, 0.008, 4, adversarial=1.0)
    recipe = tiny_recipe(source="folder", linear_latents=0, readout=0.0, phases=(phase,))
    return Case(
        lambda out, resume: gan.run(recipe, out, FolderSource([folder]), resume=resume, accelerator="cpu"),
        folder / "real2.png",
    )


def fine_tuning(folder: Path) -> Case:
    inputs = make_inputs(folder, "v1")
    recipe = short("v1", epochs=1, batches_per_epoch=1)
    return Case(
        lambda out, resume: run_recipe(recipe, inputs, out, resume=resume, fabric=make_fabric("cpu")),
        cast(Path, inputs.images) / "000007.png",
    )


def start_discriminator(folder: Path) -> Case:
    inputs = make_inputs(folder, "v1")
    settings, images = DiscriminatorStart(steps=2, batch_size=4), cast(Path, inputs.images)
    return Case(
        lambda out, resume: train_discriminator(
            inputs.generator, images, out, settings, resume=resume, fabric=make_fabric("cpu")
        ),
        images / "000007.png",
    )


CASES = [hair, parsing, zoo, classifier, generator, fine_tuning, start_discriminator]


@pytest.mark.parametrize("make", CASES)
def test_changed_data_of_the_same_name_is_refused_by_name(make: Callable[[Path], Case], tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    case = make(folder)
    case.train(out, True)
    case.changed.touch()  # the content decides
    case.train(out, True)
    image = cv2.imread(str(case.changed), cv2.IMREAD_UNCHANGED)
    image[:4] = 0 if image[:4].any() else 8
    cv2.imwrite(str(case.changed), image)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InvalidInputError, match=rf"differ: {case.changed.name}\).*--restart"):
        case.train(out, True)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    case.train(out, False)  # starts anew
    case.train(out, True)


@pytest.mark.parametrize("make", [hair, classifier, generator, fine_tuning])
def test_a_second_process_in_one_folder_is_refused(make: Callable[[Path], Case], tmp_path: Path) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    case = make(folder)
    code = (
        "import sys; from pathlib import Path; from ohlora.training.loop.run_folder import locked_folder\n"
        f"with locked_folder(Path({str(out)!r})): print('held', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InvalidInputError, match=rf"process {other.pid}\) is writing to"):
            case.train(out, True)
        other.communicate("")
    case.train(out, True)


def test_a_second_search_for_directions_in_one_folder_is_refused(tmp_path: Path) -> None:
    nobody: Any = None
    with locked_folder(tmp_path), pytest.raises(InvalidInputError, match="is writing to"):
        run_search(nobody, nobody, tmp_path, nobody)


def test_folders_of_versions_without_hashes_resume(tmp_path: Path) -> None:
    """Their identity names no content: the data are taken as they are."""
    make_folder(tmp_path / "out")
    picture = tmp_path / "a.png"
    picture.write_bytes(b"1")
    fabric, identity = make_fabric("cpu"), {"recipe": {"rate": 1}}
    with RunFolder(tmp_path / "out", {**identity, "pictures": "x"}, fabric) as old:
        old.save({"at": 1})
    assert RunFolder(tmp_path / "out", identity, fabric, reads={"pictures": [picture]}, older={"pictures": "x"})
    other: dict[str, Any] = {"reads": {"pictures": [picture]}, "older": {"pictures": "y"}}
    with pytest.raises(InvalidInputError, match=r"with other pictures \(it was x, now y"):
        RunFolder(tmp_path / "out", identity, fabric, **other)


def test_a_file_that_is_not_read_again_is_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    picture, record = tmp_path / "a.png", tmp_path / "inputs.json"
    picture.write_bytes(b"1234")
    os.utime(picture, (1, 1))
    first = Contents({"pictures": [picture]}, record)
    first.write()
    picture.write_bytes(b"5678")
    os.utime(picture, (1, 1))
    assert Contents({"pictures": [picture]}, record).digests == first.digests  # as a folder of a million wants it
    os.utime(picture, (2, 2))
    again = Contents({"pictures": [picture]}, record)
    assert again.difference(first.digests) == "with other pictures (1 differ: a.png)"
    record.write_text("[1]")
    assert Contents({"pictures": [picture]}, record).difference(first.digests) == "with other pictures"
