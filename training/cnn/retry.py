"""The retry rule of the classifiers: train a fold until its loss is low enough, at most so many times
(docs/spec/cnn.md, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ohlora.errors import OhloraError
from ohlora.training.cnn.recipes import KEEP_BEST, ClassifierRecipe


def until_success(
    recipe: ClassifierRecipe, fold: int, losses: Sequence[float], attempt: Callable[[int], float]
) -> tuple[int, bool]:
    """Which attempt to keep, and whether it succeeded.

    losses: smallest validation losses of the attempts made before this call. attempt: makes attempt 0, 1, ... and
    returns its loss. Success is a loss of at most `recipe.threshold`. When no attempt succeeds, the best one is kept
    ("keep-best") or OhloraError raised ("error").
    """
    minima = list(losses)
    while not any(loss <= recipe.threshold for loss in minima) and len(minima) < recipe.max_attempts:
        minima.append(attempt(len(minima)))
    best = min(range(len(minima)), key=minima.__getitem__)
    success = minima[best] <= recipe.threshold
    if not success and recipe.on_failure != KEEP_BEST:
        raise OhloraError(
            f"{recipe.attribute}, fold {fold}: the smallest validation loss of {len(minima)} "
            f"attempt{'s' if len(minima) != 1 else ''} is {minima[best]:.4f}, success is {recipe.threshold:g} or less. "
            "Label more pictures, or run again with more --max-attempts, a higher --threshold or --on-failure keep-best"
        )
    return best, success
