"""The temperature that fits the base: at which its own scores say best which passage answers which query.

Models differ in how far apart their cosines lie: those of multilingual-e5 between 0.7 and 0.95, those of all-MiniLM
between 0 and 0.7. A temperature far above the base's own makes training push apart what is ranked well already; one far
below leaves no gradient. (Temperature scaling: Guo et al. 2017, arXiv 1706.04599.)
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

LOWEST, HIGHEST = 0.005, 0.1
# Rows that it is found on, and the fewest.
ROWS, FEWEST = 256, 16


def calibrated_temperature(queries: np.ndarray, positives: np.ndarray, negatives: np.ndarray) -> float:
    """The temperature with the least cross-entropy of each query's positive among all passages, two digits.

    ``queries`` and ``positives`` (n, D), row by row; ``negatives`` (m, D), m may be 0.
    """
    scores = (queries @ np.concatenate([positives, negatives]).T).astype(np.float64)
    own = scores[np.arange(len(queries)), np.arange(len(queries))]

    def cross_entropy(log_temperature: float) -> float:
        temperature = np.exp(log_temperature)
        return float((logsumexp(scores / temperature, axis=1) - own / temperature).mean())

    best = minimize_scalar(cross_entropy, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(f"{np.exp(best.x):.2g}")


def base_temperature(
    rows: Sequence[dict], model: str, encoding: dict, device: str, cache_dir: str | None
) -> float | None:
    """The calibrated temperature of a base on prepared rows, or None where these are too few.

    ``encoding``: fields of EncodeSettings. What is encoded: ROWS rows, one positive and one negative of each.
    """
    if len(rows) < FEWEST:
        return None
    from m3kit.encoding.encode import Encoder, EncodeSettings
    from m3kit.encoding.models import choose_device, choose_precision, find_model

    device, _ = choose_device(device)
    precision, _ = choose_precision("auto", device)
    settings = EncodeSettings(**encoding, device=device, precision=precision)
    encoder = Encoder(find_model("base", model, cache_dir), settings)
    sample = random.Random(0).sample(list(rows), min(ROWS, len(rows)))
    sides = ([row["query"] for row in sample], *([row[side][0] for row in sample] for side in ("pos", "neg")))
    queries, positives, negatives = (encoder.dense(texts) for texts in sides)
    encoder.close()
    return calibrated_temperature(queries, positives, negatives)
