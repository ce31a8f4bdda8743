"""How sure a mean is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95


def bootstrap(scores: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float]:
    """(low, high) of the mean: the percentile bootstrap over documents (Efron 1979).

    scores: per document, its answers' scores. Whole documents are drawn anew, since the answers on one document are
    not independent of each other. Where every answer scored the same the interval has no width, however few they are.
    """
    sums = numpy.array([sum(document) for document in scores], dtype=float)
    counts = numpy.array([len(document) for document in scores], dtype=float)
    drawn = numpy.random.default_rng(seed).integers(len(scores), size=(NUM_RESAMPLES, len(scores)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = numpy.percentile(means, [tail, 100.0 - tail])
    return float(low), float(high)
