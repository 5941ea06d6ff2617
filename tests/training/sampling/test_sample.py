"""Sampling: numbered files, the same after any interruption, the people that `ohlora render` shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

import ohlora
from ohlora.cli import app
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.io.images import encode_image, read_image
from ohlora.io.marking import RENDERED
from ohlora.training import checkpoints
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from ohlora.training.sampling.recipes import PRESETS, SampleSettings, preset
from ohlora.training.sampling.sample import UNMIXED, images_of, latents_of, sample_images

SMALL = SampleSettings(count=10, batch=4, first_seed=50)


def generator(label_size: int = 0) -> Generator:
    torch.manual_seed(1)
    config = GeneratorConfig(
        resolution=32,
        channel_base=256,
        channel_max=16,
        label_size=label_size,
        embedding_size=4 if label_size else 0,
    )
    made = Generator(config).eval()
    with torch.no_grad():
        made.w_avg.normal_()
    return made


@pytest.fixture(scope="module")
def plain() -> Generator:
    return generator()


@pytest.fixture(scope="module")
def labelled() -> Generator:
    return generator(7)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_the_documented_sets_are_data() -> None:
    first, second = PRESETS["original-10k"], PRESETS["finetune-v1-15k"]
    assert (first.count, first.batch, first.psi, first.layers, first.labels) == (10_000, 4, 1.0, 0, "none")
    assert (second.count, second.batch, second.psi, second.layers, second.labels) == (15_000, 1, 1.0, 0, "normal")
    assert (first.mixing, second.mixing, first.train_mode) == (0.9, 0.0, False)
    assert preset("original-10k", count=3).count == 3
    with pytest.raises(InvalidInputError, match="choose original-10k or finetune-v1-15k"):
        preset("original")


def test_files_latents_and_rows(labelled: Generator, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in labelled.state_dict().items()}
    result = sample_images(labelled, tmp_path, replace(SMALL, labels="normal", first_number=7))
    names = [f"{number:06d}.jpg" for number in range(7, 17)]
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == names
    assert (result.count, result.made, result.mixed) == (10, 10, 0)
    arrays = load_file(result.samples)
    assert arrays["numbers"].tolist() == list(range(7, 17))
    for at, number in enumerate(range(7, 17)):
        face = face_from_seed(50 + number, 7)
        np.testing.assert_array_equal(arrays["z"][at], face.z)
        np.testing.assert_array_equal(arrays["label"][at], face.label)
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in rows] == names
    assert rows[3]["seed"] == 60
    np.testing.assert_allclose(rows[3]["label"], arrays["label"][3])
    with torch.no_grad():
        inputs = latents_of(range(7, 11), replace(SMALL, labels="normal"), labelled.config)
        images = images_of(labelled, inputs, SMALL)
    assert (tmp_path / names[2]).read_bytes() == encode_image(images[2], "jpeg", 95, mark=RENDERED)
    assert all(torch.equal(value, before[name]) for name, value in labelled.state_dict().items())


def test_rounding_is_the_documented_one(plain: Generator) -> None:
    inputs = latents_of(range(3), SMALL, plain.config)
    with torch.no_grad():
        made = images_of(plain, inputs, SMALL)
        image = plain(torch.from_numpy(inputs.z)).numpy().astype(np.float64)
    wanted = np.clip((image + 1) * 127.5 + 0.5, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(made, wanted)


def test_render_shows_the_same_people(tmp_path: Path) -> None:
    out = tmp_path / "sampled"
    done = CliRunner().invoke(
        app,
        ["train", "sample", "--generator", "demo", "--count", "3", "--first-seed", "40", "--out", str(out), "--json"],
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["made"] == 3
    with ohlora.Renderer("demo") as renderer:
        wanted = renderer.render(ohlora.SeedRange(40, 42)).astype(int)
    for number, image in enumerate(wanted):
        assert np.abs(read_image(out / f"{number:06d}.jpg") - image).mean() < 2  # JPEG


@pytest.mark.parametrize("train_mode", [False, True])
def test_a_stopped_run_ends_with_the_same_bytes(plain: Generator, tmp_path: Path, train_mode: bool) -> None:
    settings = replace(SMALL, train_mode=train_mode, psi=0.7, layers=4)
    sample_images(plain, tmp_path / "whole", settings)

    class TrainingStoppedError(BaseException):
        pass

    done = 0

    def stop(pictures: int) -> None:
        nonlocal done
        done += pictures
        if done >= 5:
            raise TrainingStoppedError

    with pytest.raises(TrainingStoppedError):
        sample_images(plain, tmp_path / "parts", settings, advance=stop)
    assert 0 < len(list((tmp_path / "parts").glob("*.jpg"))) < 10
    assert not (tmp_path / "parts" / "samples.safetensors").exists()
    result = sample_images(plain, tmp_path / "parts", settings)
    assert 0 < result.made < 10
    assert files(tmp_path / "parts") == files(tmp_path / "whole")


def test_deleted_and_damaged_pictures_are_made_again(plain: Generator, tmp_path: Path) -> None:
    sample_images(plain, tmp_path, SMALL)
    before = files(tmp_path)
    (tmp_path / "000002.jpg").unlink()
    damaged = bytearray(before["000006.jpg"])
    damaged[-20] ^= 1  # of the same length
    (tmp_path / "000006.jpg").write_bytes(damaged)
    assert sample_images(plain, tmp_path, SMALL).made == 2
    assert files(tmp_path) == before
    assert sample_images(plain, tmp_path, SMALL).made == 0


def test_a_picture_does_not_depend_on_its_batch(plain: Generator) -> None:
    alone = [
        images_of(plain, latents_of(range(n, n + 1), SMALL, plain.config), SMALL)[0].astype(int) for n in range(12)
    ]
    together = images_of(plain, latents_of(range(12), SMALL, plain.config), SMALL)
    difference = np.abs(np.stack(alone) - together)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_train_mode_mixes_styles_by_batches(plain: Generator, tmp_path: Path) -> None:
    settings = replace(SMALL, count=400, train_mode=True)
    drawn = latents_of(settings.numbers, settings, plain.config)
    cuts = drawn.cut.reshape(-1, 4)
    assert (cuts == cuts[:, :1]).all()  # one draw for a published batch
    assert 0.8 < (cuts[:, 0] != UNMIXED).mean() < 0.98
    assert set(cuts[:, 0]) - {UNMIXED} == set(range(1, plain.config.layers))
    # A part of the set, in other batches, is mixed alike.
    part = latents_of(range(130, 141), replace(settings, batch=3), plain.config)
    np.testing.assert_array_equal(part.cut, drawn.cut[130:141])
    np.testing.assert_array_equal(part.second, drawn.second[130:141])
    # Mixing changes a picture; layers before the cut keep the first latent.
    mixed = int(np.argmax(drawn.cut > 1))
    one = latents_of(range(mixed, mixed + 1), settings, plain.config)
    with torch.no_grad():
        difference = images_of(plain, one, settings) != images_of(plain, one, replace(settings, train_mode=False))
        assert difference.any() or one.second is not None
        second = torch.from_numpy(one.second)
        wp = plain.mix(plain.mapping(torch.from_numpy(one.z)), plain.mapping(second), int(one.cut[0]))
        wanted = ((plain.synthesis(wp).double() + 1) * 127.5 + 0.5).clamp(0, 255).to(torch.uint8)
    np.testing.assert_array_equal(images_of(plain, one, settings), wanted.permute(0, 2, 3, 1).numpy())


def test_w_avg_moves_as_in_training(plain: Generator, tmp_path: Path) -> None:
    settings = replace(SMALL, train_mode=True, mixing=0.0)
    result = sample_images(plain, tmp_path, settings)
    arrays = load_file(result.samples)
    reference = generator()
    for start in range(0, 10, 4):
        with torch.no_grad():
            reference.update_w_avg(reference.mapping(torch.from_numpy(arrays["z"][start : start + 4])))
    np.testing.assert_allclose(arrays["w_avg"], reference.w_avg.numpy(), atol=1e-6)
    assert (arrays["cut"] == UNMIXED).all()


def test_labels_are_drawn_zero_or_refused(plain: Generator, labelled: Generator, tmp_path: Path) -> None:
    zeros = latents_of(range(4), replace(SMALL, labels="zeros"), labelled.config)
    assert zeros.label.shape == (4, 7)
    assert not zeros.label.any()
    np.testing.assert_array_equal(zeros.z, latents_of(range(4), SMALL, plain.config).z)
    with pytest.raises(InvalidInputError, match="takes 7 label values: choose labels normal or zeros"):
        sample_images(labelled, tmp_path / "a", SMALL)
    with pytest.raises(InvalidInputError, match="takes no label"):
        sample_images(plain, tmp_path / "a", replace(SMALL, labels="normal"))
    with pytest.raises(InvalidInputError, match=r"layers must be in \[0, 8\], got 9"):
        sample_images(plain, tmp_path / "a", replace(SMALL, layers=9))
    foreign = Generator(GeneratorConfig(resolution=8, z_size=16, channel_base=64, channel_max=8))
    with pytest.raises(InvalidInputError, match="takes 16 latent"):
        sample_images(foreign, tmp_path / "a", SMALL)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "count must be"),
        ({"psi": float("nan")}, "psi must be"),
        ({"labels": "random"}, "none, normal or zeros"),
        ({"first_seed": -1}, "first_seed must be"),
    ],
)
def test_settings_are_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_another_job_in_the_folder_is_refused(plain: Generator, tmp_path: Path) -> None:
    sample_images(plain, tmp_path, replace(SMALL, count=2))
    with pytest.raises(InvalidInputError, match="belongs to another job: first_seed is 50 there and 51 now"):
        sample_images(plain, tmp_path, replace(SMALL, count=2, first_seed=51))
    other = generator()
    with torch.no_grad():
        other.w_avg.zero_()
    with pytest.raises(InvalidInputError, match="belongs to another job: generator"):
        sample_images(other, tmp_path, replace(SMALL, count=2))
    assert sample_images(other, tmp_path, replace(SMALL, count=2), restart=True).made == 2


def test_command_line_reads_weights_files(labelled: Generator, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    checkpoints.save(labelled, path, "stylegan")
    run = ["train", "sample", "--generator", str(path), "--out", str(tmp_path / "o"), "--count", "2"]
    refused = CliRunner().invoke(app, run)
    assert isinstance(refused.exception, InvalidInputError)
    assert not (tmp_path / "o").exists()
    done = CliRunner().invoke(app, [*run, "--preset", "finetune-v1-15k"])
    assert done.exit_code == 0, done.output
    assert "2 pictures" in done.output
    again = CliRunner().invoke(app, [*run, "--preset", "finetune-v1-15k", "--kind", "stylegan"])
    assert "2 were there" in again.output
    wrong = CliRunner().invoke(app, [*run, "--kind", "discriminator"])
    assert wrong.exception is not None
    assert "is no 'discriminator'" in str(wrong.exception)


def test_an_accelerator_that_is_not_there_is_refused(plain: Generator, tmp_path: Path) -> None:
    for name, match in (("tpu", "choose cpu, cuda or auto"), ("cuda", "no CUDA device")):
        if name == "tpu" or not torch.cuda.is_available():
            with pytest.raises(InvalidInputError, match=match):
                sample_images(plain, tmp_path / "o", SampleSettings(count=1), accelerator=name)
            assert not (tmp_path / "o").exists()
