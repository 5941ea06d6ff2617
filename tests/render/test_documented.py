"""The documented switches: hair found and dyed as the published system did, where this one differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra (torch) makes the published networks")

import torch
from torch import Tensor
from torch.nn import functional as F
from typer.testing import CliRunner

from ohlora.bundle import Bundle
from ohlora.cli import app
from ohlora.export.bundle.builder import build_bundle
from ohlora.faces import latents_of_seeds
from ohlora.io.images import read_image
from ohlora.kernels.ombre import hue_table, prepare_hair
from ohlora.render.renderer import Renderer
from ohlora.training import checkpoints
from tests.support.golden_weights import generator_state
from tests.support.small_students import golden_value

KEYS = Path(__file__).parents[1] / "golden/segmentation/effisegnet_b0_keys.json"
SEEDS, DYE = (3, 4, 5), (0.35, 0.8, 0.4)


def student_state() -> dict[str, Tensor]:
    """Seeded weights; the last layer's are scaled so that two of the faces have hair rows, and the third has none."""
    shapes = json.loads(KEYS.read_text())
    state = {key: golden_value(key, tuple(entry["shape"])) for key, entry in shapes.items()}
    return state | {"conv6.weight": state["conv6.weight"] * -0.95}


@torch.no_grad()
def documented_hair(state: dict[str, Tensor], image: np.ndarray) -> np.ndarray:
    """docs/spec/segmentation.md, section 5, word by word, fed the 256-px image: uint8 [256,256,3] -> [224,224]."""

    def norm(x: Tensor, name: str, eps: float) -> Tensor:
        values = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *values, training=False, eps=eps)

    def conv(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        before, after = ((kernel - 1) // 2,) * 2 if stride == 1 else ((kernel - 2) // 2, kernel - 2 - (kernel - 2) // 2)
        return F.conv2d(F.pad(x, (before, after) * 2), weight, state.get(f"{name}.bias"), stride, groups=groups)

    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    x = (x - 0.5) / 0.5
    x = F.silu(norm(conv(x, "encoder._conv_stem", 2), "encoder._bn0", 1e-3))
    levels, first = [], 0
    for stack, (count, stride) in enumerate(((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))):
        for index in range(first, first + count):
            name, source = f"encoder._blocks.{stack}.{index}", x
            step = stride if index == first else 1
            if f"{name}._expand_conv.weight" in state:
                x = F.silu(norm(conv(x, f"{name}._expand_conv"), f"{name}._bn0", 1e-3))
            x = conv(x, f"{name}._depthwise_conv", step, groups=x.shape[1])
            x = F.silu(norm(x, f"{name}._bn1", 1e-3))
            squeezed = F.silu(conv(x.mean((2, 3), keepdim=True), f"{name}._se_reduce"))
            x = x * torch.sigmoid(conv(squeezed, f"{name}._se_expand"))
            x = norm(conv(x, f"{name}._project_conv"), f"{name}._bn2", 1e-3)
            if step == 1 and x.shape[1] == source.shape[1]:
                x = x + source
        first += count
        if stack in (0, 1, 2, 4, 6):
            levels.append(x)
    assert [level.shape[-1] for level in levels] == [128, 64, 32, 16, 8]
    total = torch.zeros(1, 64, 224, 224)
    for i, level in enumerate(levels, 1):
        y = norm(F.relu(conv(level, f"conv{i}")), f"bn{i}", 1e-5)
        picked = torch.tensor([k * y.shape[-1] // 224 for k in range(224)])
        total = total + y[:, :, picked][:, :, :, picked]
    x = norm(total, "bn6", 1e-5)
    for ghost in ("ghost1", "ghost2"):
        a = norm(F.relu(conv(x, f"{ghost}.primary_conv.0")), f"{ghost}.primary_conv.2", 1e-5)
        b = conv(a, f"{ghost}.cheap_operation.0", groups=a.shape[1])
        x = torch.cat([a, norm(F.relu(b), f"{ghost}.cheap_operation.2", 1e-5)], 1)
    return torch.sigmoid(conv(x, "conv6"))[0, 0].numpy()


def documented_dye(image: np.ndarray, hair: np.ndarray, color: float, height: float, grad_height: float) -> np.ndarray:
    """docs/spec/ombre.md, sections 3 to 5: float64, and without a hair row the float32 map as it is."""
    rows, columns = image.shape[:2]
    b = cv2.resize(hair * np.float32(255), (columns, rows), interpolation=cv2.INTER_CUBIC)
    b = np.clip((b - 191.25) * 4, 0, 255)
    hair_rows = [y for y in range(rows) if b[y].max() >= 191.25]
    if hair_rows:
        top, bottom = hair_rows[0], hair_rows[-1]
        first = int(top + (bottom - top) * (1.0 - height))
        full = int(first + (bottom - first) * grad_height)
        weights = [0.0 if y < first else 1.0 if y >= full else (y - first) / (full - first) for y in range(rows)]
        b = b * np.array(weights)[:, None]
    tinted = image + ((0.35 * image + 0.25 * hue_table()[int(color * 360.0)]) - 38.25)
    tinted = np.clip(tinted, 0, 255).astype(np.uint8)
    alpha = (b / 255)[..., None]
    return ((1 - alpha) * image + alpha * tinted).astype(np.uint8)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path, dict[str, Tensor]]:
    """The bundle of a published generator and student with seeded weights, and their files."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(generator_state("v8"), folder / "generator.pth")
    student = student_state()
    torch.save(student, folder / "student.pth")
    bundle = build_bundle(
        folder / "bundle",
        generator=folder / "generator.pth",
        kind="stylegan-vectorfind-v8",
        hair=str(folder / "student.pth"),
        directions=None,
        name="published",
        license="none",
        provenance=None,
    )
    return bundle, folder / "generator.pth", student


def test_published_chain_is_the_documented_arithmetic(
    published: tuple[Bundle, Path, dict[str, Tensor]], tmp_path: Path
) -> None:
    bundle, weights, student = published
    generator: Any = checkpoints.load("stylegan-vectorfind-v8", weights)
    z, label = (torch.from_numpy(array) for array in latents_of_seeds(SEEDS, generator.config.label_size))
    with torch.no_grad():
        levels = generator.synthesis(generator.truncate(generator.mapping(z, label)))
    portraits = ((levels.clip(-1, 1) + 1) * 127.5 + 0.5).floor().clip(0, 255).byte().permute(0, 2, 3, 1).numpy()
    expected = np.stack([documented_dye(image, documented_hair(student, image), *DYE) for image in portraits])

    out, (color, height, grad_height) = tmp_path / "out", map(str, DYE)
    asked = ["render", "--bundle", str(bundle.path), "--faces", f"{SEEDS[0]}-{SEEDS[-1]}", "--format", "png"]
    asked += ["--color", color, "--ombre-height", height, "--grad-height", grad_height, "--out", str(out)]
    made = CliRunner().invoke(app, [*asked, "--compat", "documented"], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    images = np.stack([read_image(out / f"seed{seed:06d}.png") for seed in SEEDS])
    difference = np.abs(images.astype(int) - expected)
    assert difference.max() <= 2, f"{difference.max()} levels, {np.mean(difference):.5f} on average"
    assert (np.abs(expected.astype(int) - portraits).max((1, 2, 3)) > 20).all(), (
        "the dye is seen, on the third face too"
    )
    assert {json.loads(row)["compat"] for row in (out / "metadata.jsonl").read_text().splitlines()} == {"documented"}

    again = CliRunner().invoke(app, asked)
    assert "another job: compat is" in str(again.exception), "the switch belongs to the job"
    with Renderer(bundle) as plain, Renderer(bundle, "openvino", compat="documented") as other:
        hair = other.hair(portraits)
        exact = np.stack([documented_hair(student, image) for image in portraits])
        assert [int(row) >= 0 for row in prepare_hair(exact, (256, 256)).bottom] == [True, True, False]
        assert np.abs(hair - exact).max() < 0.02, "weights are stored as float16"
        assert np.abs(plain.hair(portraits) - exact).max() > 0.1, "fed 224 px, the student says something else"
