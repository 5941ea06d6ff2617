"""A fitted tail as a bundle of its own, beside the photographic bundle that it was fitted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ohlora.bundle import Bundle
from ohlora.bundle.installed import bundles_folder
from ohlora.bundle.photo.random_face import State, state_sha256
from ohlora.bundle.photo.rewrites import tail_arrays
from ohlora.bundle.write import new_bundle
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, load_probe, save_probe
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.generator import as_levels
from ohlora.export.graphs.mobilestylegan import synthesis_graph
from ohlora.export.networks.compare import EXACT
from ohlora.export.networks.compare import figures as figures_of
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.mobilestylegan_tail import Tail, TailedSynthesis

CARD = """
## Cheap end

`synthesis.onnx` runs the network up to {cut} pixels and then a tail that was fitted on this machine to the network's
own images (`ohlora train tail`): an approximation, not the network. {held_out} faces that it was not fitted to come out
{psnr_db:.1f} dB from the area mean of the network's full size (the worst {psnr_min_db:.1f} dB); before fitting it was
{psnr_start_db:.1f} dB.
"""


def fast_name(base: str, size: int) -> str:
    """Name of the bundle with a tail: 'photo-256-fast'."""
    return f"{base.split('-')[0]}-{size}-fast"


def add_tail_bundle(
    base: Bundle, generator: MobileStyleGAN, tail: Tail, figures: dict[str, Any], folder: Path | None = None
) -> Bundle:
    """Install the bundle of `base` whose synthesis network ends in `tail`. figures: of `FittedTail`.

    Mapping, mean, hair finder and face parser are those of `base`, byte for byte. folder: None for the data folder.
    Raises InvalidInputError when the generator is not the one of `base`, EngineError when the graph differs from the
    module; then nothing is installed.
    """
    part, size = base.generator_part(), 2 * tail.cut
    state = generator.arrays()
    require_generator(base, state_sha256(state))
    fitted = {name: np.asarray(value, np.float32) for name, value in _arrays(tail).items()}
    architecture = generator.config.architecture
    model = synthesis_graph(tail_arrays(state, fitted, architecture, tail.cut), architecture, size, tail=True)
    where = (folder or bundles_folder()) / fast_name(base.name, size)
    with new_bundle(where, start=base, overwrite=True) as draft:
        synthesis = draft.folder / part.synthesis
        synthesis.write_bytes(model.SerializeToString(deterministic=True))
        probes = {network: load_probe(base.file(part.probe), network) for network in ("mapping", "synthesis")}
        wp = probes["synthesis"].inputs["wp"]
        expected = _levels(generator, tail, wp)
        with open_engine(synthesis, backend="onnxruntime") as engine:
            EXACT["image"].require("the graph of the tail", figures_of("image", engine(wp=wp)["image"], expected))
        save_probe(draft.folder / part.probe, **probes | {"synthesis": Probe({"wp": wp}, {"image": expected})})
        with (draft.folder / "MODEL_CARD.md").open("a", encoding="utf-8") as card:
            card.write(CARD.format(cut=tail.cut, **figures))
        parity = {name: value for name, value in figures.items() if name not in ("losses", "cpu_seconds")}
        parity |= {"reference": "area mean of the network's own images", "tail_sha256": state_sha256(fitted)}
        draft.name = fast_name(base.name, size)
        draft.provenance += f"; a tail for {size} pixels fitted on this machine"
        draft.description = f"photographic faces of {size} pixels, approximated at a fraction of the work"
        draft.generator = part.model_copy(update={"resolution": size, "parity": parity})
    return Bundle.open(where)


def require_generator(base: Bundle, state: str) -> None:
    """Raises InvalidInputError when the bundle's generator is not the one with the state hash `state`."""
    if base.generator_part().state_sha256 != state:
        raise InvalidInputError(
            f"the generator of bundle '{base.name}' is not the photographic one: install that with "
            "`ohlora bundle get photo`, and name it"
        )


def _arrays(module: torch.nn.Module) -> State:
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


@torch.no_grad()
def _levels(generator: MobileStyleGAN, tail: Tail, wp: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Grey levels of the module in float64."""
    exact = MobileStyleGAN(generator.config).double()
    exact.load_state_dict(generator.state_dict())
    end = Tail(tail.architecture, tail.cut).double()
    end.load_state_dict(tail.state_dict())
    return as_levels(TailedSynthesis(exact.synthesis, end)(torch.from_numpy(wp).double()))
