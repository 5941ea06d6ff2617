"""`ohlora render`: portraits in bulk from a generator bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from typer import Option

from ohlora.cli import options
from ohlora.cli.report import ImageRun, note
from ohlora.errors import InvalidInputError

if TYPE_CHECKING:
    from ohlora.base.values import Face
    from ohlora.render.gpu.devices import DeviceSetting
    from ohlora.render.job import Look, RenderJob
    from ohlora.render.renderer import Renderer

STRENGTH = "0"
SEEDS_SHOWN = 16  # faces made when none are asked for and the bundle has no gallery


@dataclass(frozen=True)
class Portraits:
    """Which faces, and how each is generated."""

    faces: Annotated[
        list[str] | None,
        Option(help="Seeds (17, 0-999), a z-vector .csv/.npz/.npy (FILE:3-7), gallery[:NAME]. Repeatable."),
    ] = None
    count: Annotated[
        int | None, Option("--count", "-n", help="The faces of seeds 0 to COUNT - 1, in place of --faces.")
    ] = None
    psi: Annotated[float | None, Option(help="Truncation, 1 = none. Default: the bundle's.")] = None
    truncation_layers: Annotated[int | None, Option(help="Layers that are truncated. Default: all.")] = None

    noise: options.Noise = "fixed"

    def load(self, renderer: Renderer) -> Sequence[Face]:
        """--faces, or the first seeds, or for a newcomer who asks for none: the bundle's gallery, else a few seeds.

        Raises InvalidInputError for a count that no job can have.
        """

        from ohlora.faces import MAX_FACES, load_faces

        if self.faces and self.count is not None:
            raise InvalidInputError("give either --count or --faces: --count N is short for --faces 0-(N-1)")
        if self.count is not None and not 1 <= self.count <= MAX_FACES:
            raise InvalidInputError(f"--count must be in [1, {MAX_FACES:,}], got {self.count}")
        specs = self.faces or ([] if self.count is None else [f"0-{self.count - 1}"])
        if not specs:
            specs = ["gallery" if renderer.bundle.manifest.gallery else f"0-{SEEDS_SHOWN - 1}"]
            shown = f"rendering --faces {specs[0]} (--count N for as many as you like)"
            note(f"no faces asked for: {shown}")
        return load_faces(specs, renderer.label_size, renderer.bundle)


@dataclass(frozen=True)
class Expressions:
    """Strengths, words or a named set."""

    eyes: Annotated[str, Option(help="-1.2 wide open .. 1.2 closed. VALUES.")] = STRENGTH
    mouth: Annotated[str, Option(help="-1.8 wide open .. 1.8 closed. VALUES.")] = STRENGTH
    pose: Annotated[str, Option(help="-1.8 .. 1.8, the head turns (demo: tilts). VALUES.")] = STRENGTH
    expression: Annotated[
        list[str] | None,
        Option(help="In words: 'eyes wide, mouth normal, pose none', or in Korean. Repeatable: more looks."),
    ] = None
    expression_seed: options.ExpressionSeed = None
    looks: Annotated[str | None, Option(help="A named set: still50, the documented stills (expressions and dyes).")] = (
        None
    )

    def make_looks(self, dye: options.Dye) -> tuple[Look, ...]:
        """Every expression with every dye. Raises InvalidInputError when expressions are said in two ways."""
        from ohlora.base.values import Expression
        from ohlora.render.edits import named_looks
        from ohlora.render.job import make_looks, spread, zip_values

        ombres = dye.ombres()
        strengths = {"eyes": self.eyes, "mouth": self.mouth, "pose": self.pose}
        moved = [f"--{name} {value}" for name, value in strengths.items() if value != STRENGTH]
        expressions = options.expressions_in_words(self.expression or [], self.expression_seed)
        if expressions and moved:
            raise InvalidInputError(f"give either --expression or strengths, not both: leave out {' '.join(moved)}")
        if self.looks is not None:
            if expressions or moved or ombres is not None:
                raise InvalidInputError(
                    f"--looks {self.looks} says expressions and dyes itself: leave out --expression, --color and the "
                    "like"
                )
            return named_looks(self.looks)
        if not expressions:
            values = {name: spread(f"--{name}", text) for name, text in strengths.items()}
            expressions = [Expression(**row) for row in zip_values("expression", values)]
        return make_looks(expressions, ombres)


@dataclass(frozen=True)
class Engines:
    """The bundle, and what its networks run on."""

    bundle: options.BundleName = "demo"
    device: Annotated[
        str, Option(help="cpu, cuda:N, several (cuda:0,cuda:1; cuda:all), or auto: a GPU if one is there.")
    ] = "cpu"
    backend: Annotated[str, Option(help="auto, openvino or onnxruntime; on a GPU torch, tensorrt or onnxruntime.")] = (
        "auto"
    )
    precision: Annotated[str, Option(help="fp32, bf16, on a GPU fp16; auto: the bundle's own, on a GPU fp32.")] = "auto"
    engines: Annotated[Path | None, Option(help="Folder of the bundle's TensorRT engines (ohlora export).")] = None
    encoder: Annotated[str, Option(help="Of JPEG on a GPU: cpu, or nvimgcodec (nvImageCodec; other bytes).")] = "cpu"
    threads: options.Threads = None
    batch: Annotated[int | None, Option(min=1, max=4096, help="Images under way at once; default 8, on a GPU 64.")] = (
        None
    )
    compat: options.Compat = None

    def check(self, devices: list[int]) -> None:
        """Raises InvalidInputError for options of a GPU without one."""

        if self.engines is not None and not devices:
            raise InvalidInputError(f"--engines {self.engines} holds engines of a GPU: give --device cuda too")
        if self.encoder != "cpu" and not devices:
            raise InvalidInputError(f"--encoder {self.encoder} encodes on a GPU: give --device cuda too")

    def device_setting(self) -> DeviceSetting:
        from ohlora.engines.gpu.device import BUCKET
        from ohlora.render.gpu.devices import DeviceSetting

        # Text: what is unknown of it is refused when an engine is opened.
        backend, encoder = cast(Any, self.backend), cast(Any, self.encoder)
        precision = cast(Any, "fp32" if self.precision == "auto" else self.precision)
        return DeviceSetting(backend, precision, self.batch or BUCKET, self.engines, encoder)


@options.grouped
def render(
    *,
    portraits: Portraits,
    dye: options.Dye,
    expressions: Expressions,
    own: options.Directions,
    job: Annotated[Path | None, Option(help="JSON job file in place of the options above.")] = None,
    images: options.Images,
    engines: Engines,
    run: ImageRun,
) -> None:
    """Render portraits: every face with every expression and every ombre. Each portrait is generated once.

    VALUES are a number, a list `0.1,0.5,0.9` or `FIRST:LAST:COUNT`. Without faces: the bundle's gallery. Without
    --color the hair keeps its color.

    Example: `ohlora render --count 1000 --color 0.5 --out portraits`
    """
    from ohlora.cli.execute import run_job
    from ohlora.render.gpu.devices import chosen_devices
    from ohlora.render.jobs import BATCH, portrait_job

    looks = expressions.make_looks(dye)
    directions = own.read()
    devices = chosen_devices(engines.device)
    engines.check(devices)
    backend, precision = ("auto", "auto") if devices else (engines.backend, engines.precision)
    host = options.Engines(engines.bundle, backend, precision, engines.threads, engines.compat)
    with host.renderer(directions, portraits.noise) as renderer:
        asked = _asked(renderer, portraits, looks, images, job)
        setting = engines.device_setting()
        made = portrait_job(renderer, asked, batch=engines.batch or BATCH, devices=devices, setting=setting)
        run_job(made, run, workers=run.workers, contact_sheet=run.contact_sheet)


def _asked(
    renderer: Renderer, portraits: Portraits, looks: tuple[Look, ...], images: options.Images, job: Path | None
) -> RenderJob:
    """What the options ask for, or the job file in their place."""
    from ohlora.render.job import Look, RenderJob
    from ohlora.render.job_file import read_job_file

    if job is None:
        return RenderJob(portraits.load(renderer), looks, images.output(), portraits.psi, portraits.truncation_layers)
    if portraits.faces or portraits.count is not None or looks != (Look(),):
        raise InvalidInputError("give either --job or --faces/--count/--color/--expression and the like, not both")
    asked = read_job_file(job, renderer.label_size, renderer.bundle)
    return replace(asked, output=replace(asked.output, mark=False)) if images.no_mark else asked
