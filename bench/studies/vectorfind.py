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

import argparse
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import write_bytes
from ohlora.base.values import PROPERTIES
from ohlora.bench.runner.machine import machine
from ohlora.export.search_engines import compiled_portrayer, compiled_scorer
from ohlora.latents.directions import read_directions
from ohlora.training.finetune.inputs import load_generator
from ohlora.training.vectorfind.measuring import Measuring, Population, population
from ohlora.training.vectorfind.portrayer import Portrayer, bundle_portrayer
from ohlora.training.vectorfind.samples import SampleStore
from ohlora.training.vectorfind.scorers import CnnScorer, Scorer, load_scorer
from ohlora.training.vectorfind.search import run_search
from ohlora.training.vectorfind.settings import GradientTraining, Method, SearchSettings, preset
from ohlora.training.vectorfind.tester import DirectionTester, overall_leakage

STRENGTH = (1.4, 0.8, 0.8)  # standard deviations of eyes, mouth, pose for a strength of 1
READER_FACES = 40
EPOCHS = 25  # of the gradient networks: by then the validation loss stands still
MIXED: tuple[Method, Method, Method] = ("gradient", "svm", "svm")
ORTHOGONAL = ("orthogonal", "orthogonal", "orthogonal")


def rows(version: str, samples: int, codes: int) -> dict[str, SearchSettings]:
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
    for name, settings in rows(version, samples, codes).items():
        if only and name not in only.split(";"):
            continue
        folder = out / version / name.replace(" ", "_").replace(",", "").replace("(", "").replace(")", "")
        print(f"== {version}: {name} ({time.strftime('%H:%M:%S')})", flush=True)
        result = run_search(
            portrayer,
            judge,
            folder,
            settings,
            source=f"vectorfind {name}",
            samples=out / f"samples-{version}",
            note=say,
        )
        table[name] = figures(result.summary) | {"seconds": result.summary["seconds"]}
        if reader is not None and settings.strength:
            table[name]["reader"] = by_reader(portrayer, reader, settings, folder)
        print(json.dumps(table[name]), flush=True)
    if version == "demo":
        known = known_directions(portrayer, judge, out, rows(version, samples, codes)["SVM without groups, w"], reader)
        table |= known
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
    directions, _ = find_directions(portrayer.generator)
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
    images = noise.astype(np.uint8)
    costs = {}
    for name, judge in (("torch", scorer), ("compiled", compiled_scorer(scorer, resolution, scorer.columns))):
        judge.score(images, judge.columns)
        passes = []
        for _ in range(5):
            started = time.process_time()
            judge.score(images, judge.columns)
            passes.append((time.process_time() - started) / pictures * 1000)
        costs[f"{name}_ms"] = round(float(np.median(passes)), 2)
    return costs


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def markdown(result: dict[str, Any]) -> str:
    """The result file as tables."""

    def three(values: dict[str, Any], form: Callable[[float], str]) -> str:
        return " / ".join("-" if values.get(name) is None else form(values[name]) for name in PROPERTIES)

    def cut(value: float) -> str:
        return f"{value:.3f}".removeprefix("0")

    def share(value: float) -> str:
        return f"{value:.1%}"

    lines = []
    for version, table in result["rows"].items():
        lines += [
            f"**{result['titles'][version]}**",
            "",
            "| method | faces | SVM accuracy | correlation eyes / mouth / pose | pass | leakage | mean | picture |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name, row in table.items():
            cells = [
                name,
                str(row["faces"]),
                three(row["accuracy"], cut),
                three(row["correlation"], cut),
                share(row["passed_ratio"]),
                three(row["leakage"], share),
                share(row["leakage_mean"]),
                three(row["identity"], cut),
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/vectorfind-bench"))
    parser.add_argument("--scorer", type=Path, help="Property CNN for the demo rows; without one they are left out.")
    parser.add_argument("--v9", type=Path)
    parser.add_argument("--v9-scorer", type=Path)
    parser.add_argument("--reader", type=Path)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--v9-samples", type=int, default=12_000)
    parser.add_argument("--codes", type=int, default=100)
    parser.add_argument("--v9-only", default="", help="Names of rows, separated by ';'; others stay as they are.")
    parser.add_argument("--result", type=Path)
    given = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "machine": machine(),
        "strength": STRENGTH,
        "titles": {
            "v9": f"demo generator fine-tuned by v9, {given.v9_samples:,} samples",
            "demo": f"demo generator, {given.samples:,} samples",
        },
        "rows": {},
    }
    reader = None if given.reader is None else load_scorer(given.reader)
    if given.result is not None and given.result.is_file():
        result["rows"] = json.loads(given.result.read_text())["rows"]  # of a call with the other generator
    if given.v9 is not None:
        v9_scorer = load_scorer(given.v9_scorer)
        assert isinstance(v9_scorer, CnnScorer)
        portrayer = compiled_portrayer(load_generator(given.v9))
        made = run_rows("v9", portrayer, v9_scorer, given.out, given.v9_samples, given.codes, None, given.v9_only)
        result["rows"]["v9"] = (result["rows"].get("v9", {}) if given.v9_only else {}) | made
    if given.scorer is not None:
        scorer = load_scorer(given.scorer)
        assert isinstance(scorer, CnnScorer)
        portrayer = bundle_portrayer("demo")
        result["scoring"] = scoring_cost(scorer, portrayer.generator.config.resolution)
        result["rows"]["demo"] = run_rows("demo", portrayer, scorer, given.out, given.samples, given.codes, reader)
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if given.result is not None:
        write_bytes(given.result, (json.dumps(result, indent=1) + "\n").encode())
    print(markdown(result))


if __name__ == "__main__":
    main()
