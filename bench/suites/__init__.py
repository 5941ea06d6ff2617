"""What can be measured: suites of groups, each group doing one thing in several ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ohlora.bench.runner.machine import keep_memory, machine
from ohlora.bench.runner.records import Row, Run, rows_of
from ohlora.bench.runner.subjects import Options
from ohlora.bench.runner.timing import Group, measure
from ohlora.bench.suites.engines import engine_groups
from ohlora.bench.suites.kernels import kernel_groups
from ohlora.bench.suites.pipeline import job_groups
from ohlora.bench.suites.processes import cold_start_groups, scaling_rows
from ohlora.bench.suites.rewrites import rewrite_rows
from ohlora.bench.suites.roofline import roofline_rows
from ohlora.bench.suites.stages import stage_groups
from ohlora.engines import usable_cores
from ohlora.errors import InvalidInputError

Suite = Callable[[Options], Iterator[Group] | Iterator[Row]]
SUITES: dict[str, Suite] = {
    "kernels": kernel_groups,
    "engines": engine_groups,
    "rewrites": rewrite_rows,
    "stages": stage_groups,
    "pipeline": job_groups,
    "roofline": roofline_rows,
    "cold-start": cold_start_groups,
    "scaling": scaling_rows,
}
ROUNDS, SECONDS = 9, 90.0  # of a group: at most so many rounds, and about so long
QUICK_ROUNDS, QUICK_SECONDS = 3, 15.0


def chosen(names: Sequence[str]) -> list[str]:
    """Names of suites, in the order in which they run; all without any. Raises InvalidInputError for an unknown one."""
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise InvalidInputError(f"there is no suite '{unknown[0]}': choose of {', '.join(SUITES)}")
    return [name for name in SUITES if not names or name in names]


def run_suites(options: Options, names: Sequence[str], advance: Callable[[list[Row]], None]) -> Run:
    """Measure. advance: called with the rows of every group as it is done.

    PyTorch, where it is a baseline, gets as many threads as this package's engines: the usable cores.
    """
    kept = keep_memory()
    settings = {
        "subject": options.subject.name,
        "presets": list(options.subject.bundles),
        "threads": usable_cores(),
        "quick": options.quick,
        "memory_kept": kept,
        "suites": list(names),
    }
    run = Run(machine(), settings)
    if options.subject.why:
        run.left_out.append({"suite": "engines", "why": options.subject.why})
        run.left_out.append({"suite": "pipeline", "why": options.subject.why})
    rounds, seconds = (QUICK_ROUNDS, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    for name in names:
        try:
            for made in SUITES[name](options):
                if isinstance(made, Row):
                    rows = [made]
                else:
                    with made as group:
                        rows = rows_of(group, measure(group.works, group.baseline, rounds=rounds, seconds=seconds))
                run.rows += rows
                advance(rows)
        except ImportError as error:
            run.left_out.append({"suite": name, "why": f"the train extra is not installed ({error})"})
    return run
