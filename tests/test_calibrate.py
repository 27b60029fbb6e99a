"""The temperature found is the one by which scores were made; the scale of the cosines moves it along."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp

from m3kit.recipe.calibrate import HIGHEST, LOWEST, calibrated_temperature


def made(spread: float, count: int = 200, size: int = 64, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Vectors whose positives are noisy copies of the queries; a common direction narrows all cosines by ``spread``."""
    random = np.random.default_rng(seed)
    common = np.zeros(size)
    common[0] = 1

    def vectors(values: np.ndarray) -> np.ndarray:
        values = values / np.linalg.norm(values, axis=1, keepdims=True)
        values = np.sqrt(1 - spread) * common + np.sqrt(spread) * values
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    queries = random.normal(size=(count, size))
    return (
        vectors(queries),
        vectors(queries + 1.6 * random.normal(size=(count, size))),
        vectors(random.normal(size=(count, size))),
    )


def cross_entropy(queries, positives, negatives, temperature: float) -> float:
    scores = queries @ np.concatenate([positives, negatives]).T / temperature
    return float((logsumexp(scores, axis=1) - np.diag(scores)).mean())


@pytest.mark.parametrize("spread", [0.2, 0.6, 1.0])
def test_no_other_temperature_is_better(spread):
    texts = made(spread)
    found = calibrated_temperature(*texts)
    assert LOWEST <= found <= HIGHEST
    best = min(cross_entropy(*texts, temperature) for temperature in np.geomspace(LOWEST, HIGHEST, 60))
    assert cross_entropy(*texts, found) <= 1.05 * best


def test_narrow_cosines_have_a_low_one():
    assert calibrated_temperature(*made(0.2)) < 0.5 * calibrated_temperature(*made(1.0))


def test_without_negatives():
    queries, positives, _ = made(1.0)
    assert LOWEST <= calibrated_temperature(queries, positives, np.empty((0, 64))) <= HIGHEST
