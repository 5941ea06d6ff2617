"""What speed is compared with: the documented way of doing each step, written from docs/spec, nothing tuned."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.base.types import Rgb
from ohlora.bench.baselines.ombre import documented_ombre
from ohlora.faces import latents_of_seeds
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import Generator


class ByteEffiSegNet(nn.Module):
    """image uint8 [N,224,224,3] -> hair float32 [N,224,224], the network between as it is documented."""

    def __init__(self, student: EffiSegNet) -> None:
        super().__init__()
        self.student = student

    def forward(self, image: Tensor) -> Tensor:
        hair: Tensor = self.student(image.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return hair[:, 0]


def small(images: Sequence[Rgb]) -> Rgb:
    """Pictures at the student's size, uint8 [N,224,224,3]."""
    return np.stack([cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in images])


@dataclass
class DocumentedWay:
    """Networks loaded once, eager PyTorch float32, NumPy ombre, one JPEG at a time.

    batch: pictures a network run. channels_last: of the networks' maps. generator and student are given in the
    documented form, nothing rewritten.
    """

    generator: Generator
    student: EffiSegNet
    batch: int = 1
    channels_last: bool = False

    def __post_init__(self) -> None:
        if self.channels_last:
            generator, student = copy.deepcopy(self.generator), copy.deepcopy(self.student)
            self.generator = generator.to(memory_format=torch.channels_last)
            self.student = student.to(memory_format=torch.channels_last)

    def latents(self, seeds: Sequence[int]) -> Tensor:
        """wp of some seeds, as `SeedRange` has them: z, and the label where there is one."""
        size = self.generator.config.label_size
        z, label = (torch.from_numpy(values) for values in latents_of_seeds(seeds, size))
        return self.generator.truncate(self.generator.mapping(z, label if size else None))

    @torch.no_grad()
    def portraits(self, seeds: Sequence[int]) -> list[Rgb]:
        """Pictures of some seeds, one network run."""
        return list(as_bytes(self.generator.synthesis(self.latents(seeds))))

    @torch.no_grad()
    def hair(self, images: Sequence[Rgb]) -> NDArray[np.float32]:
        """Hair maps [N,224,224] of pictures, one network run."""
        x = torch.from_numpy(small(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        return np.asarray(self.student(x)[:, 0].numpy())

    def dye(self, images: Sequence[Rgb], color: float) -> list[Rgb]:
        """Picture after picture, their hair in one network run."""
        return [documented_ombre(image, one, color) for image, one in zip(images, self.hair(images), strict=True)]

    def dyed(self, seeds: Sequence[int], color: float) -> list[Rgb]:
        """Dyed portraits, `batch` at a time."""
        starts = range(0, len(seeds), self.batch)
        batches = (self.dye(self.portraits(seeds[start : start + self.batch]), color) for start in starts)
        return [image for batch in batches for image in batch]

    def render(self, seeds: Sequence[int], color: float, out: Path) -> None:
        """Dyed portraits as JPEG files."""
        for start in range(0, len(seeds), self.batch):
            some = seeds[start : start + self.batch]
            for seed, image in zip(some, self.dyed(some, color), strict=True):
                cv2.imwrite(str(out / f"{seed:06d}.jpg"), image[..., ::-1])

    def recolor(self, files: Sequence[Path], color: float, out: Path) -> None:
        """Picture files of one size, dyed, as JPEG files."""
        for start in range(0, len(files), self.batch):
            some = files[start : start + self.batch]
            images = [np.ascontiguousarray(np.asarray(cv2.imread(str(file)))[..., ::-1]) for file in some]
            for file, image in zip(some, self.dye(images, color), strict=True):
                cv2.imwrite(str(out / f"{file.stem}.jpg"), image[..., ::-1])


class PlainOnnxRuntime(DocumentedWay):
    """The documented way with both networks exported as they are and run by ONNX Runtime with its default options."""

    def __post_init__(self) -> None:
        import onnxruntime

        from ohlora.export.graphs.from_torch import to_onnx
        from ohlora.export.graphs.generator import SynthesisGraph

        config = self.generator.config
        wp = torch.zeros(2, config.layers, config.w_size)
        image = torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8)
        graphs = (
            to_onnx(SynthesisGraph(self.generator), {"wp": wp}, "image"),
            to_onnx(ByteEffiSegNet(self.student), {"image": image}, "hair"),
        )
        self._synthesis, self._hair = (
            onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
            for graph in graphs
        )

    @torch.no_grad()
    def portraits(self, seeds: Sequence[int]) -> list[Rgb]:
        wp = np.ascontiguousarray(self.latents(seeds).numpy())
        return list(as_bytes(torch.from_numpy(self._synthesis.run(None, {"wp": wp})[0])))

    def hair(self, images: Sequence[Rgb]) -> NDArray[np.float32]:
        return np.asarray(self._hair.run(None, {"image": small(images)})[0])
