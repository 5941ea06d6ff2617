"""Seeded weights in the published layouts: what the reference data were computed with.

    python -m tests.support.golden_weights --kind stylegan-celeba256 --out X.pth

writes a checkpoint as it would be downloaded; `stylegan-celeba256` and `discriminator-celeba256` give the
wrapped file with both networks, every other kind a bare state dict. A tensor depends on its published key and
shape only.
"""

from __future__ import annotations

import argparse
import functools
import re
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ohlora.training.checkpoints import KINDS, SCORE_CNNS
from ohlora.training.nets.facexformer import position_index
from ohlora.training.nets.stylegan_layers import blur_kernel
from ohlora.training.weights import stylegan_keys
from ohlora.training.weights.state_dicts import Shapes

# First match wins; the published key decides (tests/golden/README.md, section "Seeded parameters"). None:
# the value is a constant.
GENERATOR_SCALES: tuple[tuple[str, float | None], ...] = (
    (r"\.blur\.kernel$|^synthesis\.lod$", None),
    (r"^mapping\.dense.*\.weight$", 100.0),
    (r"^mapping\.dense.*\.bias$", 10.0),
    (r"^mapping\.label_weight$", 1.0),
    (r"^truncation\.w_avg$", 0.1),
    (r"\.apply_noise\.noise$", 1.0),
    (r"\.apply_noise\.weight$", 0.1),
    (r"^synthesis\.output\d+\.weight$", 0.25),
    (r"^synthesis\.layer.*(const|weight)$", 1.0),
    (r"^synthesis\..*bias$", 0.1),
)
DISCRIMINATOR_SCALES: tuple[tuple[str, float | None], ...] = (
    (r"\.blur\.kernel$|^lod$", None),
    (r"^layer14\.weight$", 1.0),
    (r"\.weight$", 1.2),
    (r"\.bias$", 0.02),
)


@functools.cache  # networks share most tensors; do not write into them
def draw(key: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """The tensor of `key`: a normal draw seeded by the key's CRC-32, in float64, cast, scaled."""
    values = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32) * np.float32(scale))


def state_from(shapes: Shapes, scales: tuple[tuple[str, float | None], ...]) -> dict[str, Tensor]:
    state = {}
    for key, shape in shapes.items():
        scale = next(scale for pattern, scale in scales if re.search(pattern, key))
        if scale is not None:
            state[key] = draw(key, shape, scale)
        else:
            state[key] = blur_kernel(shape[0]) if shape else torch.zeros(())
    return state


def generator_state(version: str) -> dict[str, Tensor]:
    """Published-layout state dict of the documented generator `version`."""
    return state_from(stylegan_keys.generator(version).shapes(), GENERATOR_SCALES)


def discriminator_state(version: str) -> dict[str, Tensor]:
    """Published-layout state dict of the documented discriminator `version`."""
    return state_from(stylegan_keys.discriminator(version).shapes(), DISCRIMINATOR_SCALES)


# The rule for FaceXFormer (tests/golden/README.md, section "Seeded parameters"): what a tensor of n weights into one
# output is scaled by when it is none of these.
FACEXFORMER_SCALES: tuple[tuple[str, float], ...] = (
    (r"_tokens?\.weight$|positional_encoding_gaussian_matrix$", 1.0),
    (r"relative_position_bias_table$", 0.2),
    (r"\.bias$", 0.1),
)
FACEXFORMER_GAIN = {"face_decoder.output_hypernetwork_mlps.layers.2.weight": 4.0}


def facexformer_state() -> dict[str, Tensor]:
    """Published-layout state dict of FaceXFormer."""
    state = {}
    for key, shape in KINDS["facexformer"].network.shapes().items():
        fixed = next((scale for pattern, scale in FACEXFORMER_SCALES if re.search(pattern, key)), None)
        if key.endswith("relative_position_index"):
            state[key] = position_index()
        elif fixed is not None:
            state[key] = draw(key, shape, fixed)
        elif len(shape) == 1:
            state[key] = 1 + draw(key, shape, 0.1)
        else:
            state[key] = draw(key, shape, float(np.sqrt(1 / np.prod(shape[1:]))) * FACEXFORMER_GAIN.get(key, 1.0))
    return state


SCORE_CNN_KINDS = tuple(f"cnn-{name}" for name in SCORE_CNNS)


def score_cnn_state(name: str) -> dict[str, Tensor]:
    """Published-layout state dict of a score CNN: an attribute, "property", "hairstyle" or "merged"."""
    return plain_state(KINDS[f"cnn-{name}"].network.shapes())


def encoder_state() -> dict[str, Tensor]:
    """Published-layout state dict of the v3 encoder."""
    return plain_state(KINDS["cvae-encoder-v3"].network.shapes())


def plain_state(shapes: Shapes) -> dict[str, Tensor]:
    """The rule of the networks that are no StyleGAN: score CNNs, encoder, gradient networks."""
    return {
        key: draw(key, shape, float(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 0.05)
        for key, shape in shapes.items()
    }


def published_file(kind: str) -> dict[str, Tensor] | dict[str, dict[str, Tensor]]:
    """What the published file of `kind` would hold, with seeded values."""
    if kind == "facexformer":
        return {"state_dict_backbone": facexformer_state()}
    version = KINDS[kind].version
    if kind == "cvae-encoder-v3":
        return encoder_state()
    if kind in SCORE_CNN_KINDS:
        return score_cnn_state(str(version))
    if version is None or KINDS[kind].part is None:
        raise SystemExit(f"no weight rule for '{kind}'")
    if version == "original":
        return {"generator": generator_state(version), "discriminator": discriminator_state(version)}
    return generator_state(version) if KINDS[kind].part == "generator" else discriminator_state(version)


def main() -> None:
    known = [name for name, kind in KINDS.items() if kind.part is not None and kind.version is not None]
    known += ["facexformer", "cvae-encoder-v3", *SCORE_CNN_KINDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, choices=known)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    torch.save(published_file(arguments.kind), arguments.out)


if __name__ == "__main__":
    main()
