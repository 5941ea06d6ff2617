"""`ohlora train vectorfind`: find directions for eyes, mouth and pose, and test them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ohlora.cli import options
from ohlora.cli.train.machine import Accelerator
from ohlora.cli.train.recipe_options import Changes, RecipeFields
from ohlora.cli.train.report import answer, indented, note

ENGINES = ("auto", "torch", "openvino", "onnxruntime")


def vectorfind(
    changes: Annotated[Changes, RecipeFields("vectorfind.settings:SearchSettings")],
    version: Annotated[
        str, Argument(help="v6, v7, v8, v9-svm, v9-gradient, v9-mixed, v9-svm-ms2, or orthogonal (ours).")
    ] = "orthogonal",
    generator: Annotated[
        str, Option("--generator", "-g", help="Checkpoint (.pth, .safetensors) or a bundle's name.")
    ] = "demo",
    scorer: Annotated[
        str | None,
        Option(help="Property or merged CNN, a portrait reader, or parsing:BUNDLE."),
    ] = None,
    out: options.Out = Path("runs/vectorfind"),
    sample_folder: Annotated[Path | None, Option(help="Keep the samples there, for several searches.")] = None,
    faces: Annotated[list[str] | None, Option(help="Test these faces instead (a z-vector table, seeds).")] = None,
    set: Annotated[list[str] | None, Option(help="NAME=VALUE of any setting (--show lists them). Repeatable.")] = None,
    positive_raises: Annotated[
        bool, Option("--positive-raises", help="Positive strengths raise the score in tables and tests.")
    ] = False,
    engine: Annotated[str, Option(help="auto, torch, openvino or onnxruntime.")] = "auto",
    accelerator: Accelerator = "auto",
    show: Annotated[bool, Option("--show", help="Print the settings as JSON and stop.")] = False,
    restart: options.Restart = False,
    json: options.Json = False,
) -> None:
    """Search a generator for latent directions: scored samples -> SVM, Gradient or orthogonal -> test on 50 pictures a
    face.

    Writes directions.safetensors (for `render --directions` and `bundle build`), the documented tables and reports, and
    sheets of the faces that pass; `ohlora train select` chooses among them. A stopped run goes on.

    Example: `ohlora train vectorfind orthogonal --generator demo --scorer property_cnn.pth --out runs/directions`
    """
    from ohlora.base.recipe import read_changes
    from ohlora.errors import InvalidInputError
    from ohlora.training.vectorfind.settings import SearchSettings, as_json, preset

    raising = {"orientation": "raises"} if positive_raises else {}
    settings = preset(version, **changes | read_changes(SearchSettings, set or [], "search: ") | raising)
    if show:
        typer.echo(indented(as_json(settings)))
        return
    if scorer is None:
        raise InvalidInputError(
            "no scorer: --scorer FILE, a property or merged CNN of `ohlora train property-cnn` and `merge-cnn`, or "
            "parsing:BUNDLE"
        )
    if engine not in ENGINES:
        raise InvalidInputError(f"--engine must be one of {', '.join(ENGINES)}, got '{engine}'")
    from ohlora.training.vectorfind.scorers import load_scorer, require_columns
    from ohlora.training.vectorfind.search import run_search

    judge = load_scorer(scorer, _device(accelerator) if engine in ("auto", "torch") else "cpu")
    require_columns(judge, settings.columns)
    portrayer = _portrayer(generator, engine, accelerator)
    portrayer.size(settings.space)
    listed = None
    if faces:
        from ohlora.bundle import Bundle
        from ohlora.faces import load_faces

        own = Bundle.open(generator) if not Path(generator).is_file() else None
        listed = list(load_faces(faces, portrayer.generator.config.label_size, own))
    columns = judge.columns if sample_folder is not None else settings.columns
    judge = _compiled(judge, portrayer.generator.config.resolution, columns, engine, accelerator)
    with _Steps(json, {"samples": settings.samples, "faces": len(listed) if listed else settings.codes}) as steps:
        result = run_search(
            portrayer,
            judge,
            out,
            settings,
            source=f"vectorfind {version}",
            samples=sample_folder,
            faces=listed,
            restart=restart,
            note=steps.note,
            advance=steps.advance,
        )
    last = f"directions -> {out / 'directions.safetensors'}"
    answer(json, {"out": str(out), **result.summary}, *lines(result.summary), last)


def lines(summary: dict[str, Any]) -> list[str]:
    """The result for people."""
    test, found = summary["test"], summary["directions"]
    said = []
    for name in ("eyes", "mouth", "pose"):
        facts = found.get(name, {})
        accuracy = f", SVM accuracy {facts['accuracy']:.3f}" if facts.get("accuracy") is not None else ""
        said.append(
            f"{name}: correlation {test[f'{name}_corr_mean']:+.3f}, leakage onto the other two "
            f"{test['leakage'][name]:.0%}{accuracy}"
        )
    said.append(f"{test['passed']} of {test['faces']} faces pass ({test['passed_ratio']:.1%})")
    if test["without_directions"]:
        said.append(f"{test['without_directions']} faces belong to a group without directions")
    return said


def _device(accelerator: str) -> str:
    from ohlora.training.sampling.sample import device_named

    return device_named(accelerator).type


def _portrayer(generator: str, engine: str, accelerator: str) -> Any:
    """On a CPU compiled, on a GPU in PyTorch, unless told."""
    from ohlora.training.vectorfind.portrayer import bundle_portrayer, torch_portrayer

    in_torch = engine == "torch" or (engine == "auto" and _device(accelerator) == "cuda")
    backend: Any = "auto" if engine in ("auto", "torch") else engine
    if not Path(generator).is_file():
        if not in_torch:
            return bundle_portrayer(generator, backend)
        from ohlora.training.unbundle.generator import generator_from_bundle

        return torch_portrayer(generator_from_bundle(generator), _device(accelerator))
    from ohlora.export.search_engines import compiled_portrayer
    from ohlora.training.finetune.inputs import load_generator

    module = load_generator(generator)
    return torch_portrayer(module, _device(accelerator)) if in_torch else compiled_portrayer(module, backend)


def _compiled(judge: Any, resolution: int, columns: Any, engine: str, accelerator: str) -> Any:
    """A score CNN compiled for the generator's pictures, where that is asked for and possible."""
    from ohlora.export.search_engines import compiled_scorer
    from ohlora.training.nets.score_cnns import SIZE
    from ohlora.training.vectorfind.scorers import CnnScorer

    in_torch = engine == "torch" or (engine == "auto" and _device(accelerator) == "cuda")
    if in_torch or not isinstance(judge, CnnScorer) or resolution > SIZE:
        return judge
    return compiled_scorer(judge, resolution, columns, "auto" if engine == "auto" else engine)


class _Steps:
    """A progress bar for each part of a search, one after the other."""

    def __init__(self, quiet: bool, totals: dict[str, int]) -> None:
        self.quiet, self.totals = quiet, totals
        self.bar: Any = None
        self.what = ""

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
        self.bar, self.what = None, ""

    def advance(self, what: str, count: int) -> None:
        from ohlora.cli.progress import Progress

        if what != self.what:
            self._end()
            self.what, self.bar = what, Progress(self.totals[what], what, quiet=self.quiet).__enter__()
        self.bar.advance(count)

    def note(self, text: str) -> None:
        self._end()
        if not self.quiet:
            note(text)
