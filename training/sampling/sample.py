"""Sample a generator into a folder of numbered pictures, as the documented data sets were made.

The folder holds NNNNNN.jpg (quality 95), `samples.safetensors` (numbers, z, label; in training mode cut and w_avg too),
`metadata.jsonl` (a row a picture: seed, label, sha256) and the journal by which a killed run goes on. The same command
gives the same bytes however often it was interrupted; pictures that were deleted or changed are made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from ohlora.base.atomic import write_bytes
from ohlora.base.values import Z_SIZE, random_stream
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError
from ohlora.faces import LABEL_SIZES, latents_of_seeds
from ohlora.io.images import encode_image
from ohlora.io.marking import RENDERED
from ohlora.render.journal import Journal
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.loop.distributed import chosen_device
from ohlora.training.nets.families import AnyConfig, AnyGenerator
from ohlora.training.nets.pixels import as_bytes
from ohlora.training.nets.stylegan import W_AVG_DECAY
from ohlora.training.sampling.recipes import SampleSettings

SAMPLES = "samples.safetensors"
JPEG_QUALITY = 95  # what the published pictures were written with
ENCODERS = 2
MAPPED_AT_ONCE = 1024
# Second words of the Philox keys whose first is a seed; 0 is the faces' own stream.
MIXING_LATENT, MIXING_CUT = 1, 2
UNMIXED = -1


@dataclass(frozen=True)
class SampleResult:
    """What a run did. made: pictures written by this run; the others were there. mixed: pictures of two latents."""

    out: Path
    count: int
    made: int
    mixed: int
    generator_sha256: str
    samples: Path


@dataclass(frozen=True)
class Latents:
    """Inputs of consecutive numbers. z [N,512], label [N,L]; second [N,512] and cut int64 [N] (UNMIXED) of mixing."""

    numbers: NDArray[np.int64]
    z: NDArray[np.float32]
    label: NDArray[np.float32]
    second: NDArray[np.float32] | None
    cut: NDArray[np.int64]


def picture_name(number: int) -> str:
    return f"{number:06d}.jpg"


def sample_images(
    generator: AnyGenerator,
    out: Path | str,
    settings: SampleSettings,
    *,
    accelerator: str = "auto",
    restart: bool = False,
    advance: Callable[[int], None] = lambda pictures: None,
) -> SampleResult:
    """Write the pictures of `settings` into `out`; goes on where an interrupted run of the same settings was.

    accelerator: auto, cpu or cuda; TF32 stays off. restart: begin again in a folder of another job. advance: called
    with the number of pictures done, those that were there included. The generator is left as it is.
    Raises InvalidInputError for labels that the generator does not take, a latent size other than 512, a device that is
    not there, or a folder of another job; OutputError when a file cannot be written.
    """
    require_labels(generator, settings)
    device = chosen_device(accelerator)
    identity = state_sha256(generator)
    request = {"kind": "sample", "generator": identity, **asdict(settings), "mark": True}
    where = next(generator.parameters()).device
    was_training = generator.training
    with Journal.open(out, request, restart=restart, former={"mark": False}) as journal, exact_arithmetic():
        try:
            pending = set(_pending(journal, settings.count))
            advance(settings.count - len(pending))
            generator.to(device).eval()
            averages = moving_averages(generator, settings) if settings.train_mode else None
            _make(generator, journal, settings, pending, averages, advance)
            journal.finish(settings.count)
            mixed = _write_samples(Path(out) / SAMPLES, generator, settings, averages)
        finally:
            generator.to(where).train(was_training)
    return SampleResult(Path(out), settings.count, len(pending), mixed, identity, Path(out) / SAMPLES)


def require_labels(generator: AnyGenerator, settings: SampleSettings) -> None:
    """Raises InvalidInputError unless `settings` fit the generator."""
    config = generator.config
    if config.z_size != Z_SIZE or config.label_size not in LABEL_SIZES:
        raise InvalidInputError(
            f"this generator takes {config.z_size} latent and {config.label_size} label values; seeds give {Z_SIZE} "
            f"and {', '.join(map(str, LABEL_SIZES))}"
        )
    if config.label_size and settings.labels == "none":
        raise InvalidInputError(f"this generator takes {config.label_size} label values: choose labels normal or zeros")
    if not config.label_size and settings.labels != "none":
        raise InvalidInputError(f"this generator takes no label: choose labels none, not {settings.labels}")
    if config.conditional_truncation and settings.psi < 1.0:
        raise InvalidInputError("this generator truncates towards random means of a label: sample it with psi 1")
    if settings.layers > config.layers:
        raise InvalidInputError(f"truncation layers must be in [0, {config.layers}], got {settings.layers}")


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """float32 as on a CPU: cuDNN takes TF32 for convolutions unless told."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def latents_of(numbers: range, settings: SampleSettings, config: AnyConfig) -> Latents:
    """The inputs of these pictures. Each depends on its number and the first seed alone."""
    drawn = config.label_size if settings.labels == "normal" else 0
    z, label = latents_of_seeds((settings.first_seed + number for number in numbers), drawn)
    if not drawn:
        label = np.zeros((len(z), config.label_size), np.float32)
    cut = np.array([_cut(number, settings, config.layers) for number in numbers], dtype=np.int64)
    second = None
    if (cut != UNMIXED).any():
        streams = (random_stream({"seed": settings.first_seed + number, "stream": MIXING_LATENT}) for number in numbers)
        second = np.stack([stream.standard_normal(Z_SIZE).astype(np.float32) for stream in streams])
    return Latents(np.array(numbers, dtype=np.int64), z, label, second, cut)


def _cut(number: int, settings: SampleSettings, layers: int) -> int:
    """First style layer that takes the second latent, 1 .. layers - 1; UNMIXED without mixing.

    Drawn once for `mixing_batch` pictures, as a published batch was mixed as a whole.
    """
    if not settings.train_mode or settings.mixing == 0.0:
        return UNMIXED
    seed = settings.first_seed + number // settings.mixing_batch
    stream = random_stream({"seed": seed, "stream": MIXING_CUT})
    return int(stream.integers(1, layers)) if stream.uniform() < settings.mixing else UNMIXED


def moving_averages(generator: AnyGenerator, settings: SampleSettings) -> Tensor:
    """w_avg after each batch of `mixing_batch` pictures, float32 [batches, w_size].

    The mapping network is a hundredth of the work, so it is run over all pictures beforehand: a resumed run then needs
    nothing of what was done before it.
    """
    numbers = settings.numbers
    chunks = (numbers[at : at + MAPPED_AT_ONCE] for at in range(0, settings.count, MAPPED_AT_ONCE))
    w = torch.cat([_mapped(generator, latents_of(chunk, settings, generator.config)) for chunk in chunks])
    bounds = [at for at, number in enumerate(numbers) if at and number % settings.mixing_batch == 0]
    averages = [generator.w_avg]
    for batch in w.tensor_split(bounds):
        averages.append(torch.lerp(batch.mean(0), averages[-1], W_AVG_DECAY))
    return torch.stack(averages[1:])


def _mapped(generator: AnyGenerator, inputs: Latents, second: bool = False) -> Tensor:
    z = inputs.second if second and inputs.second is not None else inputs.z
    device = generator.w_avg.device
    label = torch.from_numpy(inputs.label).to(device) if generator.config.label_size else None
    w: Tensor = generator.mapping(torch.from_numpy(z).to(device), label)
    return w


def images_of(
    generator: AnyGenerator, inputs: Latents, settings: SampleSettings, averages: Tensor | None = None
) -> NDArray[np.uint8]:
    """Pictures of these inputs, uint8 RGB [N,R,R,3], rounded as documented: floor((x + 1) * 127.5 + 0.5) in float64."""
    wp = generator.broadcast(_mapped(generator, inputs))
    if inputs.second is not None:
        cut = torch.from_numpy(np.where(inputs.cut == UNMIXED, generator.config.layers, inputs.cut)).to(wp.device)
        late = torch.arange(generator.config.layers, device=wp.device)[None] >= cut[:, None]
        wp = torch.where(late[..., None], generator.broadcast(_mapped(generator, inputs, second=True)), wp)
    if settings.psi < 1.0 and settings.layers:
        average = generator.w_avg.expand(len(wp), -1)
        if averages is not None:
            first = settings.first_number // settings.mixing_batch
            average = averages[torch.from_numpy(inputs.numbers // settings.mixing_batch - first).to(wp.device)]
        early = torch.arange(generator.config.layers, device=wp.device)[:, None] < settings.layers
        wp = torch.where(early, torch.lerp(average[:, None], wp, settings.psi), wp)
    return as_bytes(generator.draw(wp).double())


def _pending(journal: Journal, count: int) -> Iterator[int]:
    """Items to make: never made, gone, or of other bytes than recorded."""
    for item in range(count):
        row = journal.finished.get(item)
        with suppress(OSError):
            if row and journal.verify(row) and file_sha256(journal.folder / row["file_name"]) == row["sha256"]:
                continue
        journal.forget(item)
        yield item


def _make(
    generator: AnyGenerator,
    journal: Journal,
    settings: SampleSettings,
    pending: set[int],
    averages: Tensor | None,
    advance: Callable[[int], None],
) -> None:
    written: Iterable[None] = ()
    with ThreadPoolExecutor(ENCODERS, thread_name_prefix="ohlora-sample") as pool:
        for start in range(0, settings.count, settings.batch):
            # The whole batch, though one picture of it may be missing: a network's last bits depend on the batch size.
            items = range(start, min(start + settings.batch, settings.count))
            missing = [at for at, item in enumerate(items) if item in pending]
            if missing:
                inputs = latents_of(settings.numbers[items.start : items.stop], settings, generator.config)
                images = images_of(generator, inputs, settings, averages)
                list(written)  # at most two batches are held
                written = pool.map(partial(_write, journal, settings, inputs, images), missing)
                advance(len(missing))
        list(written)


def _write(journal: Journal, settings: SampleSettings, inputs: Latents, images: NDArray[np.uint8], at: int) -> None:
    number = int(inputs.numbers[at])
    data = encode_image(images[at], "jpeg", JPEG_QUALITY, mark=RENDERED if journal.settings["mark"] else None)
    written = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    write_bytes(journal.folder / picture_name(number), data)
    row: dict[str, Any] = {"file_name": picture_name(number), "number": number, "seed": settings.first_seed + number}
    if inputs.label.shape[1]:
        row["label"] = [float(value) for value in inputs.label[at]]
    if inputs.cut[at] != UNMIXED:
        row["mixed_from_layer"] = int(inputs.cut[at])
    journal.record(number - settings.first_number, row | written)


def _write_samples(path: Path, generator: AnyGenerator, settings: SampleSettings, averages: Tensor | None) -> int:
    """samples.safetensors of the whole set; returns how many pictures were mixed."""
    drawn = latents_of(settings.numbers, settings, generator.config)
    arrays = {"numbers": drawn.numbers, "z": drawn.z, "label": drawn.label}
    if averages is not None:
        arrays |= {"cut": drawn.cut, "w_avg": averages[-1].cpu().numpy()}
    write_bytes(path, save(arrays))
    return int((drawn.cut != UNMIXED).sum())
