"""A picture's hair dyed by recolor.onnx with ONNX Runtime, NumPy and Pillow alone.

ohlora export demo --model recolor --size 512x512 --out engines
python recolor_onnxruntime.py engines/recolor.onnx photo.jpg dyed.png --color 0.9
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--color", type=float, required=True, help="hue 0..1")
    parser.add_argument("--height", type=float, default=0.7)
    parser.add_argument("--grad-height", type=float, default=0.5)
    options = parser.parse_args()

    session = onnxruntime.InferenceSession(options.model, providers=["CPUExecutionProvider"])
    shapes = {tensor.name: tensor.shape for tensor in session.get_inputs()}
    _, height, width, _ = shapes["image"]
    picture = Image.open(options.picture).convert("RGB")
    if picture.size != (width, height):
        raise SystemExit(f"{options.picture} is {picture.size[0]}x{picture.size[1]}, the model takes {width}x{height}")
    rows = {
        "image": np.asarray(picture)[None],
        "ombre": np.array([[options.color, options.height, options.grad_height]], np.float32),
    }
    dyed, _ = session.run(["dyed", "hair"], rows)
    Image.fromarray(dyed[0]).save(options.out)


if __name__ == "__main__":
    main()
