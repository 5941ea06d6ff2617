"""Portraits from portrait.onnx with ONNX Runtime, NumPy and Pillow alone.

ohlora export demo --model portrait --out engines
python portrait_onnxruntime.py engines/portrait.onnx --seeds 0:4 --eyes -1 --color 0.5 --out pictures
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def latent(seed: int, size: int) -> np.ndarray:
    """The face of a seed as `ohlora render` draws it: normal numbers of a counter-based stream."""
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(size).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seeds", default="0:1", help="FIRST:END")
    parser.add_argument("--eyes", type=float, default=0.0)
    parser.add_argument("--mouth", type=float, default=0.0)
    parser.add_argument("--pose", type=float, default=0.0)
    parser.add_argument("--color", type=float, default=-1.0, help="hue 0..1; below 0: the hair stays as it is")
    parser.add_argument("--height", type=float, default=0.7)
    parser.add_argument("--grad-height", type=float, default=0.5)
    parser.add_argument("--psi", type=float, help="truncation of all layers, 1: none; default: the model's")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    options = parser.parse_args()

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    session = onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    shapes = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    psi = options.psi
    if psi is None:
        psi = float(session.get_modelmeta().custom_metadata_map.get("ohlora.psi", 1))
    first, end = map(int, options.seeds.split(":"))
    options.out.mkdir(parents=True, exist_ok=True)
    for start in range(first, end, options.batch):
        seeds = range(start, min(start + options.batch, end))
        rows = {
            "z": np.stack([latent(seed, shapes["z"][1]) for seed in seeds]),
            "truncation": np.tile(np.array([psi, 99 if psi < 1 else 0], np.float32), (len(seeds), 1)),
            "expression": np.tile(np.array([options.eyes, options.mouth, options.pose], np.float32), (len(seeds), 1)),
            "ombre": np.tile(
                np.array([options.color, options.height, options.grad_height], np.float32), (len(seeds), 1)
            ),
            # Of generators with labels and directions in groups; the others have no such inputs.
            "label": np.zeros((len(seeds), shapes.get("label", [0, 0])[1]), np.float32),
            "group": np.zeros(len(seeds), np.int64),
        }
        (images,) = session.run(["image"], {name: rows[name] for name in shapes})
        for seed, image in zip(seeds, images, strict=True):
            Image.fromarray(image).save(options.out / f"seed{seed:06d}.png")


if __name__ == "__main__":
    main()
