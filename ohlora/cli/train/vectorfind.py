"""`ohlora train vectorfind`: find directions for eyes, mouth and pose, and test them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from ohlora.cli.report import indented, note
from ohlora.cli.train.machine import Loop
from ohlora.cli.train.recipe_options import Changes, RecipeFields

ENGINES = ("auto", "torch", "openvino", "onnxruntime")


def vectorfind(
    *,
    changes: Annotated[Changes, RecipeFields("vectorfind.settings:SearchSettings")],
    version: Annotated[
        str, Argument(help="v6, v7, v8, v9-svm, v9-gradient, v9-mixed, v9-svm-ms2, or orthogonal (ours).")
    ] = "orthogonal",
    generator: Annotated[
        str, Option("--generator", "-g", help="Checkpoint (.pth, .safetensors) or a bundle's name.")
    ] = "demo",
    scorer: Annotated[str | None, Option(help="Property or merged CNN, a portrait reader, or parsing:BUNDLE.")] = None,
    sample_folder: Annotated[Path | None, Option(help="Keep the samples there, for several searches.")] = None,
    faces: Annotated[list[str] | None, Option(help="Test these faces instead (a z-vector table, seeds).")] = None,
    set: Annotated[
        list[str] | None, Option(help="NAME=VALUE of any setting, gradient.NAME of its training. Repeatable.")
    ] = None,
    positive_raises: Annotated[
        bool, Option("--positive-raises", help="Positive strengths raise the score in tables and tests.")
    ] = False,
    engine: Annotated[str, Option(help="auto, torch, openvino or onnxruntime.")] = "auto",
    show: Annotated[bool, Option("--show", help="Print the settings as JSON and stop.")] = False,
    how: Loop = Loop(out=Path("runs/vectorfind")),
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
    from ohlora.training.loop.distributed import chosen_device
    from ohlora.training.vectorfind.scorers import load_scorer, require_columns
    from ohlora.training.vectorfind.search import run_search

    # Compiled on a CPU, in PyTorch on a GPU, unless told.
    device = "cpu" if engine in ENGINES[2:] else chosen_device(how.accelerator).type
    in_torch = engine == "torch" or (engine == "auto" and device == "cuda")
    judge = load_scorer(scorer, device)
    require_columns(judge, settings.columns)
    portrayer = _portrayer(generator, None if in_torch else engine, device)
    portrayer.size(settings.space)
    listed = None
    if faces:
        from ohlora.bundle import Bundle
        from ohlora.faces import load_faces

        own = Bundle.open(generator) if not Path(generator).is_file() else None
        listed = list(load_faces(faces, portrayer.generator.config.label_size, own))
    if not in_torch:
        columns = judge.columns if sample_folder is not None else settings.columns
        judge = _compiled(judge, portrayer.generator.config.resolution, columns, engine)
    totals = {"samples": settings.samples, "faces": len(listed) if listed else settings.codes}
    with _Steps(how.json, totals) as steps:
        result = run_search(
            portrayer,
            judge,
            how.out,
            settings,
            source=f"vectorfind {version}",
            samples=sample_folder,
            faces=listed,
            restart=how.restart,
            note=steps.note,
            advance=steps.advance,
        )
    last = f"directions -> {how.out / 'directions.safetensors'}"
    how.tell({"out": str(how.out), **result.summary}, *lines(result.summary), last)


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


def _portrayer(generator: str, backend: Any, device: str) -> Any:
    """A bundle's or a checkpoint's generator, compiled for a backend; without one in PyTorch."""
    from ohlora.export.search_engines import compiled_portrayer
    from ohlora.training.finetune.inputs import load_any_generator
    from ohlora.training.vectorfind.portrayer import bundle_portrayer, torch_portrayer

    if backend is None:
        return torch_portrayer(load_any_generator(generator), device)
    if Path(generator).is_file():
        return compiled_portrayer(load_any_generator(generator), backend)
    return bundle_portrayer(generator, backend)


def _compiled(judge: Any, resolution: int, columns: Any, backend: str) -> Any:
    """A score CNN compiled for the generator's pictures, where that is possible."""
    from ohlora.export.search_engines import compiled_scorer
    from ohlora.training.nets.score_cnns import SIZE
    from ohlora.training.vectorfind.scorers import CnnScorer

    compilable = isinstance(judge, CnnScorer) and resolution <= SIZE
    return compiled_scorer(judge, resolution, columns, backend) if compilable else judge


class _Steps(ExitStack):
    """A progress bar for each part of a search, one after the other."""

    def __init__(self, quiet: bool, totals: dict[str, int]) -> None:
        super().__init__()
        self.quiet, self.totals, self.what = quiet, totals, ""

    def advance(self, what: str, count: int) -> None:
        from ohlora.cli.progress import Progress

        if what != self.what:
            self.close()
            self.what, self.bar = what, self.enter_context(Progress(self.totals[what], what))
        self.bar.advance(count)

    def note(self, text: str) -> None:
        self.close()
        self.what = ""
        if not self.quiet:
            note(text)
