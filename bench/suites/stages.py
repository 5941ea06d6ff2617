"""The steps between networks: decoding, fitting, masks, encoding, writing. Baselines are OpenCV's plain calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ohlora.base.types import Rgb
from ohlora.base.values import Ombre
from ohlora.bench.runner.jobs import OUTPUT, Folders
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import Group, Work
from ohlora.bench.suites.kernels import differing, scene
from ohlora.io.images import encode_image, read_image
from ohlora.kernels.ombre import prepare_hair
from ohlora.photos.heads import HeadMask
from ohlora.photos.segmentation import student_input
from ohlora.render.plan import Output
from ohlora.render.sinks import FolderSink, Picture

COUNT = 16
QUALITY = 95


def stage_groups(options: Options) -> Iterator[Group]:
    """Each step alone, on pictures of 256 pixels, one thread."""
    images = smooth_pictures()
    yield decode(images)
    yield from (encode(images, name) for name in ("jpeg", "png", "webp"))
    yield fit(images)
    yield mask()
    yield write(images)


def smooth_pictures() -> Rgb:
    """uint8 [16,256,256,3] with the detail of a portrait, not of noise, which no encoder meets."""
    coarse = np.random.default_rng(2).integers(0, 256, (COUNT, 24, 24, 3)).astype(np.uint8)
    return np.stack([cv2.resize(picture, (256, 256), interpolation=cv2.INTER_CUBIC) for picture in coarse])


def each(work: Callable[[int], Any], **more: Any) -> Work:
    def call() -> None:
        for i in range(COUNT):
            work(i)

    return Work(call, COUNT, **more)


def decode(images: Rgb) -> Group:
    """Our reader checks more (size, orientation, damage); its JPEG decoder is another one than OpenCV's."""
    stack = ExitStack()
    folder = stack.enter_context(Folders()).new()
    files = [folder / f"{i}.jpg" for i in range(COUNT)]
    for file, image in zip(files, images, strict=True):
        file.write_bytes(encode_image(image, "jpeg", QUALITY))

    def plain(file: Path) -> Rgb:
        return np.ascontiguousarray(np.asarray(cv2.imread(str(file)))[..., ::-1])

    accuracy = lambda: differing(np.stack([read_image(f) for f in files]), np.stack([plain(f) for f in files]))  # noqa: E731
    works = {
        "OpenCV imread": each(lambda i: plain(files[i])),
        "ohlora read_image": each(lambda i: read_image(files[i]), accuracy=accuracy),
    }
    return Group("stages", "decode a JPEG of 256 px", "file", works, "OpenCV imread", stack)


def encode(images: Rgb, name: str) -> Group:
    flags = {"jpeg": [cv2.IMWRITE_JPEG_QUALITY, QUALITY], "webp": [cv2.IMWRITE_WEBP_QUALITY, QUALITY], "png": []}[name]
    suffix = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}[name]
    works = {
        "OpenCV imencode": each(lambda i: cv2.imencode(suffix, images[i][..., ::-1], flags)),
        "ohlora encode_image": each(lambda i: encode_image(images[i], name, QUALITY)),
    }
    return Group("stages", f"encode {name} of 256 px", "picture", works, "OpenCV imencode")


def fit(images: Rgb) -> Group:
    works = {
        "OpenCV area resize": each(lambda i: cv2.resize(images[i], (224, 224), interpolation=cv2.INTER_AREA)),
        "ohlora student_input": each(lambda i: student_input(images[i])),
    }
    return Group("stages", "fit a picture to the student", "picture", works, "OpenCV area resize")


def mask() -> Group:
    _, hair = scene(COUNT)
    works = {
        "OpenCV cubic resize": each(lambda i: cv2.resize(hair[i], (256, 256), interpolation=cv2.INTER_CUBIC)),
        "ohlora prepare_hair": each(lambda i: prepare_hair(hair[i : i + 1], (256, 256), threads=1)),
    }
    return Group("stages", "hair map to mask of 256 px", "picture", works, "OpenCV cubic resize")


def write(images: Rgb) -> Group:
    """Dye, encode, hash, atomic file, metadata row; beside OpenCV, which encodes and writes."""
    stack = ExitStack()
    folder = stack.enter_context(Folders()).new()
    sink = FolderSink(folder, OUTPUT, {})
    hair = prepare_hair(scene(1)[1], (256, 256))
    dye = Ombre(0.5, 0.7, 0.5)

    def ours(i: int, ombre: Ombre | None) -> None:
        sink.write(Picture(images[i], {}, (HeadMask(0, 0, hair),)), Output(i, f"{i}.jpg", ombre, {}))

    works = {
        "OpenCV imwrite": each(lambda i: cv2.imwrite(str(folder / f"cv{i}.jpg"), images[i][..., ::-1])),
        "ohlora FolderSink": each(lambda i: ours(i, None)),
        "ohlora FolderSink, dyed": each(lambda i: ours(i, dye)),
    }
    return Group("stages", "write a JPEG of 256 px", "file", works, "OpenCV imwrite", stack)
