"""From a trained generator to portraits of one command: directions, gallery, float16 bundle, `ohlora render`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ohlora
from ohlora.bundle import Bundle
from ohlora.errors import BundleError, InvalidInputError, OhloraError
from ohlora.faces import face_from_seed
from ohlora.io.images import read_image
from ohlora.latents.directions import read_directions
from ohlora.training import checkpoints
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.directions.reader import Reader, save_reader
from ohlora.training.nets.stylegan import Generator, GeneratorConfig
from tests.support.command_line import output_of

W_SIZE = 48


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with generators g and other, directions, gallery.csv, the float16 bundle and an exact, plain one."""
    folder = tmp_path_factory.mktemp("made")
    for name, seed in (("g", 0), ("other", 1)):
        torch.manual_seed(seed)
        config = GeneratorConfig(resolution=32, w_size=W_SIZE, mapping_layers=2, channel_base=512, channel_max=16)
        generator = Generator(config)
        with torch.no_grad():
            generator.synthesis.const.normal_()
        checkpoints.save(generator, folder / f"{name}.safetensors", "stylegan")
    output_of("train", "directions", folder / "g.safetensors", "--samples", 2000, "--out", folder / "directions")
    output_of("train", "gallery", "--count", 3, "--candidates", 100, "--out", folder / "gallery.csv")
    output_of(*build(folder), "--storage", "float16", "--gallery", folder / "gallery.csv", "--out", folder / "bundle")
    assert "weights as float32" in output_of(*build(folder), "--out", folder / "exact")
    return folder


def build(folder: Path, generator: str = "g") -> list[object]:
    command = ["bundle", "build", "--generator", folder / f"{generator}.safetensors"]
    return [*command, "--directions", folder / "directions"]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def test_bundle_says_what_it_holds(made: Path) -> None:
    bundle = Bundle.open(made / "bundle")
    part = bundle.generator_part()
    module = checkpoints.load("stylegan", made / "g.safetensors")
    assert (part.kind, part.w_size, part.state_sha256) == ("stylegan", W_SIZE, state_sha256(module))
    assert part.parity["storage"] == "float16"
    assert part.parity["image_psnr_db"] > 45
    assert bundle.directions()["groups"] == ["all"]
    assert bundle.directions()["eyes"].shape == (1, W_SIZE)
    assert [entry.name for entry in bundle.gallery()] == ["Ada", "Alex", "Amari"]
    for backend in ("onnxruntime", "openvino"):
        for engine in bundle.generator_engines(backend):
            engine.close()


def test_storage_changes_the_files_alone(made: Path) -> None:
    sizes = {name: (made / name / "mapping.onnx").stat().st_size for name in ("exact", "bundle")}
    assert sizes["bundle"] < 0.6 * sizes["exact"]
    images = []
    for name in sizes:
        with ohlora.Renderer(made / name, threads=1) as renderer:
            images.append(renderer.render(face_from_seed(5), ohlora.Expression(pose=1)).astype(int))
    assert np.abs(images[0] - images[1]).mean() < 1


def test_any_seed_changes_its_expression(made: Path, tmp_path: Path) -> None:
    output_of(
        "render", "--bundle", made / "bundle", "--faces", "0-3", "--eyes", "0,1", "--format", "png", "-o", tmp_path
    )
    names = [row["file_name"] for row in rows(tmp_path)]
    assert names[:2] == ["seed000000_0000.png", "seed000000_0001.png"]
    still, moved = (read_image(tmp_path / name) for name in names[:2])
    assert (still != moved).any()
    directions = read_directions(made / "directions")
    module = checkpoints.load("stylegan", made / "g.safetensors")
    assert isinstance(module, Generator)
    with torch.no_grad():
        w = module.mapping(torch.from_numpy(face_from_seed(0).z[None].copy()))
        w = w + torch.from_numpy(directions.vectors["eyes"]["all"]).float()
        image = (module.synthesis(module.broadcast(w))[0] + 1) * 127.5 + 0.5
    wanted = image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.abs(moved.astype(int) - wanted).mean() < 1


def test_directions_of_training_serve_a_bundle_made_of_the_same_weights(made: Path, tmp_path: Path) -> None:
    render = ["render", "--bundle", made / "bundle", "--count", 2, "--mouth", 1]
    output_of(*render, "--out", tmp_path / "own")
    output_of(*render, "--directions", made / "directions", "--out", tmp_path / "given")
    assert [row["sha256"] for row in rows(tmp_path / "own")] == [row["sha256"] for row in rows(tmp_path / "given")]
    output_of("train", "directions", made / "other.safetensors", "--samples", 2000, "--out", tmp_path / "other")
    with pytest.raises(InvalidInputError, match=r"foreign directions .* that of bundle 'bundle'"):
        output_of(*render, "--directions", tmp_path / "other", "--out", tmp_path / "x")
    with pytest.raises(InvalidInputError, match=r"foreign directions .* that of other.safetensors"):
        output_of(*build(made, "other"), "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_counting_and_the_newcomers_faces(made: Path, tmp_path: Path) -> None:
    render = ["render", "--bundle", made / "bundle"]
    output_of(*render, "--count", 3, "--out", tmp_path / "a")
    output_of(*render, "--faces", "0-2", "--out", tmp_path / "b")
    assert [row["face"] for row in rows(tmp_path / "a")] == ["seed000000", "seed000001", "seed000002"]
    assert rows(tmp_path / "a") == rows(tmp_path / "b")
    assert "--faces gallery" in output_of(*render, "--out", tmp_path / "c")
    assert [row["face"] for row in rows(tmp_path / "c")] == ["Ada", "Alex", "Amari"]
    assert {row["ombre"] for row in rows(tmp_path / "c")} == {None}
    assert "--faces 0-15" in output_of("render", "--bundle", made / "exact", "--out", tmp_path / "d")
    assert len(rows(tmp_path / "d")) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", 3, "--faces", "0-2"], "either --count or --faces"),
        (["--count", 0], r"--count must be in \[1, 10,000,000\], got 0"),
        (["--count", 10_000_001], "--count must be in"),
        (["--count", 3, "--job", "job.json"], "either --job or"),
        (["--count", 3, "--ombre-height", 0.3], r"--ombre-height 0.3 has no effect without --color"),
        (["--count", 3, "--directions", "nowhere"], "no direction tables in nowhere"),
    ],
)
def test_bad_requests_write_nothing(made: Path, tmp_path: Path, arguments: list[object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        output_of("render", "--bundle", made / "bundle", *arguments, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_refused_builds(made: Path, tmp_path: Path) -> None:
    out = ["--out", tmp_path / "x"]
    with pytest.raises(InvalidInputError, match="--gallery belong to a generator"):
        output_of("bundle", "build", "--gallery", made / "gallery.csv", *out)
    with pytest.raises(InvalidInputError, match="unknown --storage 'int8': choose float32 or float16"):
        output_of(*build(made), "--storage", "int8", *out)
    (tmp_path / "bad.csv").write_text("name,group,v0\nA,,1\n")
    with pytest.raises(BundleError, match="line 1: the columns must be"):
        output_of(*build(made), "--gallery", tmp_path / "bad.csv", *out)
    header = "name,group," + ",".join(f"v{i}" for i in range(512)) + "\n"
    (tmp_path / "empty.csv").write_text(header)
    with pytest.raises(InvalidInputError, match="has no faces"):
        output_of(*build(made), "--gallery", tmp_path / "empty.csv", *out)
    (tmp_path / "groups.csv").write_text(header + "A,hh," + ",".join(["0"] * 512) + "\n")
    with pytest.raises(BundleError, match="group 'hh' is not one of all"):
        output_of(*build(made), "--gallery", tmp_path / "groups.csv", *out)
    assert not (tmp_path / "x").exists()


def test_measured_directions(made: Path, tmp_path: Path) -> None:
    save_reader(tmp_path / "r.safetensors", Reader(size=32, width=4))
    train = ["train", "directions", made / "g.safetensors", "--samples", 2000, "--out", tmp_path / "d"]
    output_of(*train, "--reader", tmp_path / "r.safetensors", "--measure", 4)
    report = json.loads((tmp_path / "d" / "directions.json").read_text())
    assert report["measured"]["seeds"] == 4
    assert set(report["measured"]["eyes"]["change_per_strength"]) == {"eye_opening", "mouth_opening", "tilt", "turn"}
    assert read_directions(tmp_path / "d").sha256 == read_directions(made / "directions").sha256
    with pytest.raises(InvalidInputError, match="--measure reads pictures: give --reader"):
        output_of(*train, "--measure", 4)
    with pytest.raises(OhloraError, match="no portrait reader"):
        output_of(*train, "--reader", made / "g.safetensors")


@pytest.mark.parametrize("stage", ["directions", "gallery", "reader"])
def test_help_has_an_example(stage: str) -> None:
    text = output_of("train", stage, "--help")
    assert "Example" in text
    assert f"ohlora train {stage}" in " ".join(text.split())


def test_animation_of_any_seed(made: Path, tmp_path: Path) -> None:
    output_of("animate", "--bundle", made / "bundle", "--faces", 7, "--out", tmp_path)
    assert (rows(tmp_path)[0]["frames"], rows(tmp_path)[0]["source"]) == (40, "seed000007")
