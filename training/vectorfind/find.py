"""Scored samples -> directions, by each property's method."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import PROPERTIES
from ohlora.errors import InvalidInputError
from ohlora.latents.directions import EVERYONE, Directions
from ohlora.latents.gradient_network import GradientNetwork
from ohlora.latents.spaces import check_space
from ohlora.training.loop.seeds import derive
from ohlora.training.vectorfind import orthogonal
from ohlora.training.vectorfind.direction_test import leakage
from ohlora.training.vectorfind.gradient import train_regression
from ohlora.training.vectorfind.measuring import Measuring
from ohlora.training.vectorfind.samples import SampleStore
from ohlora.training.vectorfind.selection import extremes, group_names
from ohlora.training.vectorfind.svm import fit_svm

Vectors = dict[str, dict[str, NDArray[np.float64]]]  # property -> group -> [D], towards the lower score
Note = Callable[[str], None]

WEAK = 0.3  # share of a score that is linear in the vector, below which the search says so
MIN_EXTREMES = 2  # of each kind: one to train on, one to validate


@dataclass
class Found:
    """vectors: of properties with fixed directions, towards the lower score. networks: of the others. facts: report."""

    vectors: Vectors = field(default_factory=dict)
    networks: dict[str, GradientNetwork] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def directions(self, source: str, generator: str, space: str, *, orientation: str = "runtime") -> Directions:
        """orientation: "runtime" (strength 1 lowers every score), or that of the settings, see `SearchSettings`."""
        fixed = -1.0 if orientation == "raises" else 1.0
        learned = -1.0 if orientation == "runtime" else 1.0
        groups = sorted(set.intersection(*(set(g) for g in self.vectors.values()))) if self.vectors else [EVERYONE]
        vectors = {name: {g: fixed * self.vectors[name][g] for g in groups} for name in self.vectors}
        networks = {name: replace(network, scale=learned * network.scale) for name, network in self.networks.items()}
        return Directions(vectors, source, generator, check_space(space), networks)

    def scaled(self, factors: Mapping[str, float]) -> Found:
        """Every direction times its property's factor."""
        vectors = {name: {g: factors[name] * v for g, v in groups.items()} for name, groups in self.vectors.items()}
        networks = {name: replace(n, scale=factors[name] * n.scale) for name, n in self.networks.items()}
        return Found(vectors, networks, {**self.facts, "scale": {name: float(f) for name, f in factors.items()}})


def find_directions(store: SampleStore, measuring: Measuring, note: Note = lambda text: None) -> Found:
    """Directions of unit length (orthogonal: one standard deviation of the score), and what was found on the way.

    Raises InvalidInputError when no group has samples enough.
    """
    settings, people, found = measuring.settings, measuring.people, Found()
    by_method: dict[str, list[str]] = {}
    for name, method in zip(PROPERTIES, settings.methods, strict=True):
        by_method.setdefault(method, []).append(name)
    for name in by_method.get("svm", ()):
        found.vectors[name], found.facts[name] = _svm(store, measuring, name, note)
    if "orthogonal" in by_method:
        shifts, found.facts["orthogonal"] = _orthogonal(store, measuring, note)
        for name in by_method["orthogonal"]:
            found.vectors[name] = {group: -rows[name] for group, rows in shifts.items()}
    if "gradient" in by_method:
        vectors = store.gather(settings.space, np.arange(store.count))  # one copy for the three networks
        for name in by_method["gradient"]:
            note(f"gradient network of {name}")
            network, figures = train_regression(
                vectors, people.of(name), settings.gradient, seed=settings.seed, name=name, note=note
            )
            found.networks[name] = network.runtime()
            found.facts[name] = {"method": "gradient", **{k: round(v, 6) for k, v in figures.items()}}
    usable = sorted(set.intersection(*(set(g) for g in found.vectors.values()))) if found.vectors else [EVERYONE]
    if not usable:
        raise InvalidInputError(
            f"no group has {MIN_EXTREMES} extremes of every property in {store.count} samples: take more samples "
            "or fewer groups"
        )
    found.facts["groups_without_directions"] = [g for g in people.group_sizes() if found.vectors and g not in usable]
    return found


def _svm(
    store: SampleStore, measuring: Measuring, name: str, note: Note
) -> tuple[dict[str, NDArray[np.float64]], dict[str, Any]]:
    """One SVM a group -> vectors towards "smallest", and accuracy on the extremes held out."""
    settings, people = measuring.settings, measuring.people
    vectors, right, validated, iterations = {}, 0, 0, 0
    for index, group in enumerate(group_names(len(settings.groups))):
        members = np.flatnonzero(people.groups == index)
        if not len(members) or np.isnan(people.of(name)[members]).all():
            continue
        sides = [members[side] for side in extremes(people.of(name)[members], settings.share)]
        train = int(settings.train_share * len(sides[0]))
        if len(sides[0]) < MIN_EXTREMES or train < 1:
            note(f"{name}, group {group}: {len(sides[0])} extremes are too few for an SVM, left out")
            continue
        stream = np.random.Generator(np.random.Philox(key=derive(settings.seed, "svm", name, group)))
        sides = [side[stream.permutation(len(side))] for side in sides]
        drawn = store.gather(settings.space, np.concatenate(sides))
        largest, smallest = drawn[: len(sides[0])], drawn[len(sides[0]) :]
        fitted = fit_svm(largest[:train], smallest[:train], settings.c)
        right += int((fitted.decision(largest[train:]) <= 0).sum() + (fitted.decision(smallest[train:]) > 0).sum())
        validated += 2 * (len(sides[0]) - train)
        iterations = max(iterations, fitted.iterations)
        vectors[group] = fitted.direction.astype(np.float64)
        note(f"{name}, group {group}: {len(members)} samples, SVM of {2 * train} vectors")
    accuracy = round(right / validated, 4) if validated else None
    return vectors, {"method": "svm", "accuracy": accuracy, "validated": validated, "solver_iterations": iterations}


def _orthogonal(store: SampleStore, measuring: Measuring, note: Note) -> tuple[Vectors, dict[str, Any]]:
    """group -> property -> shift that raises its score by one standard deviation."""
    settings, people = measuring.settings, measuring.people
    names = tuple(dict.fromkeys((*PROPERTIES, *settings.protect)))
    columns = [people.columns.index(name) for name in names]
    shifts, facts = {}, {}
    for index, group in enumerate(group_names(len(settings.groups))):
        members = people.groups == index

        def blocks(members: NDArray[np.bool_] = members) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float64]]]:
            for rows, vectors in store.blocks(settings.space):
                keep = members[rows]
                scores = (people.scores[rows][:, columns] - people.mean[columns]) / people.deviation[columns]
                yield vectors[keep], scores[keep].astype(np.float64)

        try:
            moments = orthogonal.moments(blocks())
        except InvalidInputError as error:
            note(f"group {group}: {error}, left out")
            continue
        linear = orthogonal.readable(moments, settings.ridge)
        for name, share in zip(PROPERTIES, linear[: len(PROPERTIES)], strict=True):
            if share < WEAK:
                note(f"group {group}: only {share:.0%} of {name} is linear in the vector: a poor direction")
        rows = orthogonal.least_shifts(moments, settings.ridge)
        rows, history = orthogonal.refined(rows, lambda shift: measuring.shift_effects(shift, names), settings.refine)
        shifts[group] = dict(zip(names, rows, strict=True))
        leaks = [float(leakage(matrix[: len(PROPERTIES)]).mean()) for matrix in history]
        facts[group] = {
            "samples": moments.count,
            "scores": list(names),
            "linear_share": np.round(linear, 4).tolist(),
            "measured_leakage_before_each_round_and_at_the_end": [round(leak, 4) for leak in leaks],
            "measured_effects": np.round(history[-1], 4).tolist(),
        }
        note(f"group {group}: leakage of the shifts {' -> '.join(f'{leak:.3f}' for leak in leaks)}")
    return shifts, facts
