"""Every kind of job that is killed here: a table of commands. A new kind is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ohlora.io.animation import write_animation
from ohlora.io.images import encode_image


@dataclass(frozen=True)
class Inputs:
    """What the commands read beside the bundle that ships, made by `make_inputs`. items: photographs, and portraits
    of a job.
    """

    items: int
    photos: Path
    videos: Path


@dataclass(frozen=True)
class JobKind:
    """arguments: of the command, for these inputs and this folder of results."""

    name: str
    arguments: Callable[[Inputs, Path], tuple[object, ...]]


def _render(backend: str) -> Callable[[Inputs, Path], tuple[object, ...]]:
    job = ("--color", "0.1,0.6", "--contact-sheet", "--backend", backend)
    return lambda inputs, out: ("render", "--count", inputs.items, *job, "--out", out)


def _recolor(what: Callable[[Inputs], Path], *options: object) -> Callable[[Inputs, Path], tuple[object, ...]]:
    job = ("--detect", "whole", "--color", "0.1,0.6", *options)
    return lambda inputs, out: ("recolor", what(inputs), *job, "--out", out)


def _animate(format: str) -> Callable[[Inputs, Path], tuple[object, ...]]:
    return lambda inputs, out: (
        *("animate", inputs.photos, "--color", f"0:1:{inputs.items}"),
        *("--format", format, "--out", out),
    )


KINDS = (
    JobKind("render-openvino", _render("openvino")),
    JobKind("render-onnxruntime", _render("onnxruntime")),
    JobKind("recolor-photos", _recolor(lambda inputs: inputs.photos, "--contact-sheet")),
    JobKind("recolor-videos", _recolor(lambda inputs: inputs.videos)),
    JobKind("animate-mp4", _animate("mp4")),
    JobKind("animate-gif", _animate("gif")),
)


def make_inputs(folder: Path, items: int) -> Inputs:
    inputs = Inputs(items, folder / "photos", folder / "videos")
    inputs.photos.mkdir()
    inputs.videos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(items):
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        image = cv2.resize(small, (64 + 2 * number, 80), interpolation=cv2.INTER_CUBIC)
        (inputs.photos / f"{number:02d}.jpg").write_bytes(encode_image(image, "jpeg"))
        if number < 4:
            frames = [np.ascontiguousarray(np.roll(image, step, axis=1)) for step in range(items)]
            write_animation(inputs.videos / f"{number:02d}.mp4", frames, fps=12, format="mp4")
    return inputs
