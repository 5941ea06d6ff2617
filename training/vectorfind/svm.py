"""The documented linear SVM, solved to convergence, and what is read off it
(docs/spec/vectorfind.md, sections 3.5, 3.6 and 9).

`LinearSVC` with its defaults (L2 penalty, squared hinge, C = 1, intercept regularised) has one optimum. The published
search stopped its dual solver after at most 1,000 sweeps, short of it; the primal solver with a small tolerance
reaches it, so a direction no longer depends on the order of the samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ohlora.errors import InvalidInputError, OhloraError

TOLERANCE, MAX_ITERATIONS = 1e-8, 100_000


@dataclass(frozen=True)
class LinearSvm:
    """coef float64 [D], intercept; iterations of the solver."""

    coef: NDArray[np.float64]
    intercept: float
    iterations: int

    def decision(self, vectors: NDArray[np.floating]) -> NDArray[np.float64]:
        """vectors [N,D] -> float64 [N], positive on the side of the second class."""
        return np.asarray(vectors, np.float64) @ self.coef + self.intercept

    @property
    def direction(self) -> NDArray[np.float32]:
        """coef as float32, to unit length, as it is stored: towards the second class."""
        coef = self.coef.astype(np.float32)
        return coef / np.float32(np.linalg.norm(coef))


def fit_svm(first: NDArray[np.floating], second: NDArray[np.floating], c: float = 1.0) -> LinearSvm:
    """Separate the rows of `first` [n,D] from those of `second` [m,D], the positive class; nothing is standardised.

    Raises InvalidInputError for an empty class, OhloraError when the solver does not converge.
    """
    from sklearn.svm import LinearSVC

    if not len(first) or not len(second) or first.shape[1:] != second.shape[1:]:
        raise InvalidInputError(
            f"an SVM needs two classes of vectors of one length, got {first.shape} and {second.shape}"
        )
    x = np.concatenate([first, second]).astype(np.float64)
    y = np.concatenate([np.zeros(len(first)), np.ones(len(second))])
    # The optimum lies in the span of the samples: with fewer samples than dimensions, solve in coordinates of the span.
    basis = np.linalg.qr(x.T)[0] if len(x) < x.shape[1] else None
    solver = LinearSVC(C=c, dual=False, tol=TOLERANCE, max_iter=MAX_ITERATIONS)
    solver.fit(x if basis is None else x @ basis, y)
    if int(solver.n_iter_) >= MAX_ITERATIONS:
        raise OhloraError(
            f"the SVM of {len(x)} vectors did not converge in {MAX_ITERATIONS:,} iterations: take more samples, or a "
            "smaller c"
        )
    coef = solver.coef_[0] if basis is None else basis @ solver.coef_[0]
    return LinearSvm(np.asarray(coef, np.float64), float(solver.intercept_[0]), int(solver.n_iter_))
