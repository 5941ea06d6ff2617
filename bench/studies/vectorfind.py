"""Methods of finding directions, side by side: same samples, same scorer, same faces, same strength of effect.

    python -m ohlora.bench.studies.vectorfind --out runs/vectorfind-bench \
        --scorer runs/scorer/property_cnn.safetensors --v9 runs/pipeline/finetune-v9/generator.safetensors \
        --v9-scorer runs/scorer/merged.safetensors --reader runs/reader.safetensors \
        --result bench/results/vectorfind.json

Two generators: the demo bundle's, and the one that `train pipeline --preset demo` fine-tunes from it by recipe v9,
which has the split mapping network. Every row's directions are scaled so that a strength of 1 changes the property's
own score by the same number of standard deviations; the rows "unit length" are the documented scale. --reader: a
network that no search used, which judges the demo rows again. A stopped run goes on; rows that are done are not run
again.
"""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.values import PROPERTIES
from ohlora.bench.runner.report import markdown_table
from ohlora.bench.runner.study import study
from ohlora.bench.runner.timing import seconds_of
from ohlora.errors import InvalidInputError
from ohlora.export.search_engines import compiled_portrayer, compiled_scorer
from ohlora.latents.directions import read_directions
from ohlora.training.finetune.inputs import load_generator
from ohlora.training.nets.families import require_stylegan
from ohlora.training.vectorfind.direction_test import DirectionTester, overall_leakage
from ohlora.training.vectorfind.measuring import Measuring, Population, population
from ohlora.training.vectorfind.portrayer import Portrayer, bundle_portrayer
from ohlora.training.vectorfind.samples import SampleStore
from ohlora.training.vectorfind.scorers import CnnScorer, Scorer, load_scorer
from ohlora.training.vectorfind.search import run_search
from ohlora.training.vectorfind.settings import GradientTraining, Method, SearchSettings, preset

STRENGTH = (1.4, 0.8, 0.8)  # standard deviations of eyes, mouth, pose for a strength of 1
READER_FACES = 40
EPOCHS = 25  # of the gradient networks: by then the validation loss stands still
MIXED: tuple[Method, Method, Method] = ("gradient", "svm", "svm")


def searches(version: str, samples: int, codes: int) -> dict[str, SearchSettings]:
    """Row name -> search."""
    svm = preset("v9-svm" if version == "v9" else "v7", cutoffs=(), samples=samples, codes=codes, stop_after=0)
    svm = replace(svm, share=0.2, limits=(0.92, 0.88, 0.88), strength=STRENGTH, identity=True)
    short = GradientTraining(epochs=EPOCHS)
    gradient = replace(svm, groups=(), methods=("gradient", "gradient", "gradient"), gradient=short)
    ours = replace(preset("orthogonal", strength=STRENGTH), samples=samples, codes=codes, stop_after=0)
    if version == "demo":
        return {
            "orthogonal (ours), w": ours,
            "SVM, w": svm,
            "SVM without groups, w": replace(svm, groups=()),
            "Gradient, w": gradient,
            "SVM, w, unit length": replace(svm, strength=(), codes=min(codes, 30)),
        }
    return {
        "SVM, w": svm,
        "SVM, mapping_split1": replace(svm, space="mapping_split1"),
        "SVM, mapping_split2": replace(svm, space="mapping_split2"),
        "Gradient, w": gradient,
        "mixed, mapping_split1": replace(svm, space="mapping_split1", methods=MIXED, gradient=short),
        "orthogonal (ours), w": ours,
    }


def run_rows(
    version: str,
    portrayer: Portrayer,
    scorer: CnnScorer,
    out: Path,
    samples: int,
    codes: int,
    reader: Scorer | None,
    only: str = "",
) -> dict[str, Any]:
    judge = compiled_scorer(scorer, portrayer.generator.config.resolution, scorer.columns)
    table = {}
    for name, settings in searches(version, samples, codes).items():
        if only and name not in only.split(";"):
            continue
        folder = out / version / name.replace(" ", "_").replace(",", "").replace("(", "").replace(")", "")
        print(f"== {version}: {name} ({time.strftime('%H:%M:%S')})", flush=True)
        stored, source = out / f"samples-{version}", f"vectorfind {name}"
        result = run_search(portrayer, judge, folder, settings, source=source, samples=stored, note=say)
        table[name] = figures(result.summary) | {"seconds": result.summary["seconds"]}
        if reader is not None and settings.strength:
            table[name]["reader"] = by_reader(portrayer, reader, settings, folder)
        print(json.dumps(table[name]), flush=True)
    if version == "demo":
        settings = searches(version, samples, codes)["SVM without groups, w"]
        table |= known_directions(portrayer, judge, out, settings, reader)
    return table


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    test = summary["test"]
    return {
        "faces": test["faces"],
        "accuracy": {name: summary["directions"].get(name, {}).get("accuracy") for name in PROPERTIES},
        "correlation": {name: abs(test[f"{name}_corr_mean"]) for name in PROPERTIES},
        "effect": {name: abs(test[f"{name}_effect_mean"]) for name in PROPERTIES},
        "passed_ratio": round(test["passed_ratio"], 4),
        "leakage": test["leakage"],
        "leakage_mean": round(float(np.mean(list(test["leakage"].values()))), 4),
        "identity": {name: test[f"{name}_identity_mean"] for name in PROPERTIES},
    }


def by_reader(portrayer: Portrayer, reader: Scorer, settings: SearchSettings, folder: Path) -> dict[str, Any]:
    """The same directions judged by a network that had no part in the search."""
    unused = np.zeros((0, 3), np.float32)
    people = Population(PROPERTIES, np.zeros(3), np.ones(3), (), np.zeros(0, np.int64), unused)
    directions = read_directions(folder / "tested.safetensors")
    if len(directions.groups) > 1:
        return {}  # groups are read off by the scorer, which the reader cannot
    plain = replace(
        settings, codes=READER_FACES, identity=False, grids="none", groups=(), cutoffs=(), protect=(), stop_after=0
    )
    tested = DirectionTester(Measuring(portrayer, reader, plain, people), directions, folder / "reader").run()
    return {
        "faces": len(tested.rows),
        "correlation": {name: abs(tested.statistics[f"{name}_corr_mean"]) for name in PROPERTIES},
        "leakage": dict(zip(PROPERTIES, np.round(overall_leakage(tested.rows), 4).tolist(), strict=True)),
        "passed_ratio": round(tested.statistics["passed_ratio"], 4),
    }


def known_directions(
    portrayer: Portrayer, scorer: Any, out: Path, settings: SearchSettings, reader: Scorer | None
) -> dict[str, Any]:
    """The regression on known portrait parameters (`train directions`), which no other generator has."""
    from ohlora.latents.directions import write_directions
    from ohlora.training.directions.known_latents import find_directions

    store = SampleStore(out / "samples-demo", settings.samples, 0, scorer.columns)
    people = population(store, settings)
    folder = out / "demo" / "known_parameters"
    folder.mkdir(parents=True, exist_ok=True)
    directions, _ = find_directions(require_stylegan(portrayer.generator, "the generator"))
    write_directions(folder / "tested.safetensors", directions)
    result = DirectionTester(Measuring(portrayer, scorer, settings, people), directions, folder).run()
    summary = {"directions": {}, "test": result.statistics | {"faces": len(result.rows)}}
    summary["test"]["leakage"] = dict(zip(PROPERTIES, np.round(overall_leakage(result.rows), 4).tolist(), strict=True))
    row = figures(summary)
    if reader is not None:
        row["reader"] = by_reader(portrayer, reader, settings, folder)
    return {"known parameters (own scale)": row}


def scoring_cost(scorer: CnnScorer, resolution: int, pictures: int = 200) -> dict[str, float]:
    """Milliseconds of processor time for all scores of a picture: in PyTorch, and compiled; median of five passes."""
    noise = np.random.Generator(np.random.Philox(key=1)).integers(0, 256, (pictures, resolution, resolution, 3))
    judges: dict[str, Scorer] = {"torch": scorer, "compiled": compiled_scorer(scorer, resolution, scorer.columns)}
    calls = {f"{name}_ms": partial(one.score, noise.astype(np.uint8), one.columns) for name, one in judges.items()}
    times = seconds_of(calls, 5, clock=time.process_time)
    return {name: round(float(np.median(taken)) / pictures * 1000, 2) for name, taken in times.items()}


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def markdown(result: dict[str, Any]) -> str:
    """The result file as tables."""

    def three(values: dict[str, Any], form: Callable[[float], str]) -> str:
        return " / ".join("-" if values.get(name) is None else form(values[name]) for name in PROPERTIES)

    def cut(value: float) -> str:
        return f"{value:.3f}".removeprefix("0")

    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "faces": lambda row: str(row["faces"]),
        "SVM accuracy": lambda row: three(row["accuracy"], cut),
        "correlation eyes / mouth / pose": lambda row: three(row["correlation"], cut),
        "pass": lambda row: f"{row['passed_ratio']:.1%}",
        "leakage": lambda row: three(row["leakage"], "{:.1%}".format),
        "mean": lambda row: f"{row['leakage_mean']:.1%}",
        "picture": lambda row: three(row["identity"], cut),
    }
    parts = []
    for version, table in result["rows"].items():
        lines = [(name, *(cell(row) for cell in columns.values())) for name, row in table.items()]
        parts.append(f"**{result['titles'][version]}**\n\n{markdown_table(('method', *columns), lines)}\n")
    return "\n".join(parts)


def cnn_scorer(path: Path) -> CnnScorer:
    scorer = load_scorer(path)
    if not isinstance(scorer, CnnScorer):
        raise InvalidInputError(f"{path} is not a property CNN, which gives all scores: give another file")
    return scorer


@study(
    result="result",
    shown=False,
    scorer="Property CNN for the demo rows; without one they are left out.",
    v9_only="Names of rows, separated by ';'; others stay as they are.",
)
def main(
    out: Path = Path("runs/vectorfind-bench"),
    scorer: Path | None = None,
    v9: Path | None = None,
    v9_scorer: Path | None = None,
    reader: Path | None = None,
    samples: int = 20_000,
    v9_samples: int = 12_000,
    codes: int = 100,
    v9_only: str = "",
    result: Path | None = None,
) -> dict[str, Any]:
    made: dict[str, Any] = {
        "strength": STRENGTH,
        "titles": {
            "v9": f"demo generator fine-tuned by v9, {v9_samples:,} samples",
            "demo": f"demo generator, {samples:,} samples",
        },
        "rows": {},
    }
    judge = None if reader is None else load_scorer(reader)
    if result is not None and result.is_file():
        made["rows"] = json.loads(result.read_text())["rows"]  # of a call with the other generator
    if v9 is not None:
        if v9_scorer is None:
            raise InvalidInputError("--v9 needs --v9-scorer, which reads that generator's pictures")
        portrayer = compiled_portrayer(load_generator(v9))
        rows = run_rows("v9", portrayer, cnn_scorer(v9_scorer), out, v9_samples, codes, None, v9_only)
        made["rows"]["v9"] = (made["rows"].get("v9", {}) if v9_only else {}) | rows
    if scorer is not None:
        portrayer, cnn = bundle_portrayer("demo"), cnn_scorer(scorer)
        made["scoring"] = scoring_cost(cnn, portrayer.generator.config.resolution)
        made["rows"]["demo"] = run_rows("demo", portrayer, cnn, out, samples, codes, judge)
    made["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    print(markdown(made))
    return made


if __name__ == "__main__":
    main()
