"""Named qualities of a compiled network, each a gate that is measured: exact, balanced, fast.

A network gets the first of its forms, the fastest here first, that passes; one that was asked for by precision and does
not pass fails the export. The forms are an int8 plan (`int8_plan`), bfloat16 arithmetic where the CPU has it, and the
float32 network itself.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from ohlora.base.types import Report, check_choice
from ohlora.engines import backend_report
from ohlora.engines.rows import RowEngine
from ohlora.errors import EngineError
from ohlora.export.graphs.from_torch import open_model
from ohlora.export.graphs.passes import subpixel
from ohlora.export.networks.compare import Comparison, Figures
from ohlora.export.precision.int8_plan import Int8Plan, plan_int8
from ohlora.export.precision.quality import mask_quality, picture_quality, psnr, shown

Arrays = dict[str, NDArray[Any]]
# (name, model, arithmetic, plan)
Form = tuple[str, onnx.ModelProto, str, Int8Plan | None]

# An int8 plan that does less of the work than this gains little over bfloat16 of everything.
WORTHWHILE = 0.5
# What remains in float beside a plan that does more than this is not worth the conversions that bfloat16 costs.
NEARLY_ALL = 0.9
# Planning judges few rows, the gate many: plans aim this much higher.
MARGIN_DB, MARGIN_IOU = 0.5, 0.0005
TIMED_ROWS, TIMED_ROUNDS = 8, 5
# A form that rounds more has to be so many times faster: a tie, or noise, shall not cost quality.
HANDICAP = {"fp32": 1.0, "bf16": 1.05, "int8": 1.1, "int8+bf16": 1.1}


@dataclass(frozen=True)
class Preset:
    """Gates of pictures and masks. Plans aim at their PSNR and IoU; where there is none, only float32 may pass."""

    name: str
    pictures: Comparison
    masks: Comparison


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("exact", Comparison({"max_levels": 2}), Comparison({"max_error": 0.002})),
        Preset(
            "balanced",
            Comparison(least={"psnr_mean": 45, "psnr_worst": 42}),
            Comparison(least={"iou": 0.998, "iou_worst": 0.95}),
        ),
        Preset(
            "fast",
            Comparison(least={"psnr_mean": 35, "psnr_worst": 32}),
            Comparison(least={"iou": 0.995, "iou_worst": 0.9}),
        ),
    )
}


def preset_named(name: str) -> Preset:
    """Raises InvalidInputError naming the known ones."""
    return PRESETS[check_choice("preset", name, PRESETS)]


@dataclass(frozen=True)
class Chosen:
    """model: what the preset stands for. precision: arithmetic that its float part is to run in where it can.

    exact: the float32 network's results, which it was judged by.
    """

    model: onnx.ModelProto
    form: str
    precision: str
    quality: Figures
    plan: Int8Plan | None
    exact: NDArray[Any]

    def to_json(self, preset: Preset) -> dict[str, Any]:
        quality = {name: round(value, 6 if "iou" in self.quality else 5) for name, value in self.quality.items()}
        record: dict[str, Any] = {"preset": preset.name, "form": self.form, "quality": quality}
        return record | ({"int8": self.plan.to_json()} if self.plan and self.form.startswith("int8") else {})


@dataclass(frozen=True)
class Judge:
    """How one kind of network is judged, by its `output`.

    quality(exact, made). gate: of a preset. aims(exact, made, gate): whether a plan may go on, judged on few rows.
    """

    network: str
    output: str
    quality: Callable[[NDArray[Any], NDArray[Any]], Figures]
    gate: Callable[[Preset], Comparison]
    aims: Callable[[NDArray[Any], NDArray[Any], Comparison], bool]


def _near_pictures(exact: NDArray[Any], made: NDArray[Any], gate: Comparison) -> bool:
    found, aim = psnr(exact, made), gate.least["psnr_mean"]
    return float(found.mean()) >= aim + MARGIN_DB and float(found.min()) >= aim - 2.5


def _near_masks(exact: NDArray[Any], made: NDArray[Any], gate: Comparison) -> bool:
    found = mask_quality(exact, made)
    return found["iou"] >= gate.least["iou"] + MARGIN_IOU and gate.missed(found) is None


PICTURES = Judge("synthesis", "image", picture_quality, lambda preset: preset.pictures, _near_pictures)
MASKS = Judge("hair", "hair", mask_quality, lambda preset: preset.masks, _near_masks)


@dataclass(frozen=True)
class Target:
    """A network to be lowered. model: float32. inputs: rows it is judged on; `calibration` shares none of them."""

    judge: Judge
    model: onnx.ModelProto
    inputs: Arrays
    calibration: Arrays
    preset: Preset

    @property
    def gate(self) -> Comparison:
        return self.judge.gate(self.preset)

    def results(self, model: onnx.ModelProto, precision: str = "fp32", rows: int | None = None) -> NDArray[Any]:
        inputs = {name: value[:rows] for name, value in self.inputs.items()}
        return run_rows(model, inputs, precision)[self.judge.output]


def has_bf16() -> bool:
    """Whether an engine here computes in bfloat16."""
    return any(status.bf16 for status in backend_report(["openvino"]))


def choose(
    target: Target,
    *,
    precision: str | None = None,
    symmetric: bool = False,
    judged_in_plan: int = 8,
    report: Report = lambda line: None,
) -> Chosen:
    """The fastest form of the network that passes its gate.

    precision: only this one, "fp32", "bf16" or "int8"; EngineError when it misses the gate.
    symmetric: int8 activations as TensorRT takes them. judged_in_plan: rows that steps of a plan are judged on.
    """
    exact, gate, name = target.results(target.model), target.gate, target.judge.network
    last: Figures | None = None
    forms = _forms(target, exact, precision, symmetric, judged_in_plan)
    if len(forms) > 1 and not symmetric:  # symmetric plans run elsewhere: what is faster here says nothing
        forms = _fastest_first(target, forms, report)
    for form, model, arithmetic, plan in forms:
        made = exact if form == "fp32" else target.results(model, arithmetic)
        quality = last = target.judge.quality(exact, made)
        report(f"  {name} {form}: {shown(quality)}")
        if gate.missed(quality) is None:
            return Chosen(model, form, arithmetic, quality, plan, exact)
    figures = "no form of it could be made" if last is None else f"it reaches {shown(last)}"
    raise EngineError(
        f"{name} in {precision or 'any precision'} misses the gate ({gate}): {figures}; nothing "
        "was written. Choose a looser preset, or a higher precision"
    )


def _fastest_first(target: Target, forms: Sequence[Form], report: Report) -> Sequence[Form]:
    """Sorted by what a row takes in the engines that would be used here, measured in turn, times a handicap."""
    few = {name: value[:TIMED_ROWS] for name, value in target.inputs.items()}
    times: list[list[float]] = [[] for _ in forms]
    with ExitStack() as opened:
        engines = [opened.enter_context(_opened(model, arithmetic)) for _, model, arithmetic, _ in forms]
        for _ in range(TIMED_ROUNDS + 1):  # the first is to warm up
            for taken, engine in zip(times, engines, strict=True):
                started = time.perf_counter()
                engine(**few)
                taken.append((time.perf_counter() - started) / len(next(iter(few.values()))))
    medians = [statistics.median(taken[1:]) for taken in times]
    order = sorted(range(len(forms)), key=lambda number: medians[number] * HANDICAP[forms[number][0]])
    shown = ", ".join(f"{forms[number][0]} {1e3 * medians[number]:.1f} ms" for number in order)
    report(f"  {target.judge.network} a row: {shown}")
    return [forms[number] for number in order]


def _forms(target: Target, exact: NDArray[Any], precision: str | None, symmetric: bool, judged: int) -> Sequence[Form]:
    """What the network could be, the fastest first by what is known without measuring."""
    bf16 = has_bf16()
    if precision == "bf16" and not bf16:
        raise EngineError("this CPU has no bf16 instructions to measure bf16 with: use fp32 or int8")
    plain = ("fp32", target.model, "fp32", None)
    rounded = ("bf16", target.model, "bf16", None)
    forms: list[Form] = []
    plan = None
    if precision in (None, "int8") and target.gate.least:
        plan = _plan(target, exact, symmetric, judged)
    if plan is not None:
        integer = ("int8", plan.model, "fp32", plan)
        mixed = ("int8+bf16", plan.model, "bf16", plan)
        if precision == "int8" or plan.share >= WORTHWHILE or not bf16:
            forms += [mixed] if bf16 and precision is None and (not symmetric or plan.share < NEARLY_ALL) else []
            forms.append(integer)
        else:
            forms += [rounded, integer]
    if precision is None:
        forms += [rounded] if bf16 and rounded not in forms and target.gate.least else []
        forms.append(plain)
    elif precision in ("fp32", "bf16"):
        forms = [plain if precision == "fp32" else rounded]
    return forms


def _plan(target: Target, exact: NDArray[Any], symmetric: bool, judged: int) -> Int8Plan | None:
    def passes(model: onnx.ModelProto) -> bool:
        return target.judge.aims(exact[:judged], target.results(model, rows=judged), target.gate)

    count = len(next(iter(target.calibration.values())))
    rows = [{name: value[i : i + 1] for name, value in target.calibration.items()} for i in range(count)]
    return plan_int8(subpixel(target.model), rows, passes, symmetric=symmetric)


def run_rows(model: onnx.ModelProto, inputs: Arrays, precision: str = "fp32") -> Arrays:
    """Outputs of the engine that would be used here."""
    with _opened(model, precision) as engine:
        return engine(**inputs)


def _opened(model: onnx.ModelProto, precision: str) -> RowEngine:
    return open_model(model, backend="openvino" if precision == "bf16" else "auto", precision=precision)
