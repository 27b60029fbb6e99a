"""What the results below a folder say: means over seeds with their spread, and paired tests over queries."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

SHOWN = ("dense", "sparse", "colbert", "hybrid")
Results = dict[tuple[str, str, str], list[dict]]


def read(work: Path) -> Results:
    """(set, rows, system) → the results of its seeds."""
    found: Results = defaultdict(list)
    for file in sorted(work.glob("*/*/*/*/result.json")):
        result = json.loads(file.read_text("utf-8"))
        found[result["set"], str(result["asked"]), result["system"]].append(result)
    return dict(sorted(found.items()))


def mean(results: list[dict], figure: str) -> float:
    return float(np.mean([np.mean(result["figures"][figure]) for result in results]))


def best_with_bm25(results: list[dict], score: str) -> tuple[float, str]:
    """The best figure over the weights of BM25 beside a score, chosen on the test itself: an upper bound."""
    every = set.intersection(*(set(result["figures"]) for result in results))
    names = [name for name in every if name == score or name.startswith(f"{score} + ")]
    return max(((mean(results, name), name) for name in names), default=(0.0, ""))


def table(work: Path) -> str:
    lines = []
    for task, columns in (
        ("retrieval", None),
        ("sts", ["Spearman"]),
        ("classification", None),
        ("clustering", ["V-measure"]),
    ):
        chosen = {key: results for key, results in read(work).items() if results[0]["task"] == task}
        if not chosen:
            continue
        names = columns or (
            [*SHOWN, "best with BM25"] if task == "retrieval" else ["logistic", "1-NN", "nearest label"]
        )
        lines += ["", "| set | rows | system | seeds | " + " | ".join(names) + " | CPU s | forgotten |"]
        lines.append("|" + "---|" * (len(names) + 6))
        for (name, rows, system), results in chosen.items():
            cells = [_cell(results, column) for column in names]
            forgotten = [
                f"{np.mean([np.mean(result['forgotten'][other]['dense']) for result in results]):.3f} {other}"
                for other in results[0]["forgotten"]
            ]
            seconds = np.mean([result["cpu_seconds"] for result in results])
            cells = [name, rows, system, str(len(results)), *cells, f"{seconds:.0f}", ", ".join(forgotten)]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(results: list[dict], column: str) -> str:
    if column == "best with BM25":
        value, name = max(best_with_bm25(results, score) for score in (*SHOWN, "dense and colbert"))
        return f"{value:.3f} ({name})"
    if column not in results[0]["figures"]:
        return ""
    values = [float(np.mean(result["figures"][column])) for result in results]
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def compare(work: Path) -> str:
    """Dense of each system against sentence-transformers' best and against the base, paired over queries."""
    from scipy.stats import bootstrap, permutation_test

    lines = [
        "| set | rows | system | dense − base | dense − best of sentence-transformers | its name |",
        "|" + "---|" * 6,
    ]
    found = read(work)
    for (name, rows, system), results in found.items():
        if results[0]["task"] != "retrieval" or system == "base":
            continue
        rivals = {key[2]: of for key, of in found.items() if key[:2] == (name, rows) and key[2].startswith("st-")}
        base = next((of for key, of in found.items() if key[0] == name and key[2] == "base"), None)
        best = max(rivals, key=lambda rival: mean(rivals[rival], "dense"), default=None)
        cells = []
        for other in (base, rivals.get(best)):
            if not other:
                cells.append("")
                continue
            gain = _by_query(results) - _by_query(other)
            if not gain.any():
                cells.append("0")
                continue
            interval = bootstrap((gain,), np.mean, n_resamples=2000, rng=0).confidence_interval
            p = permutation_test(
                (gain,), np.mean, permutation_type="samples", vectorized=True, n_resamples=5000, rng=0
            ).pvalue
            cells.append(f"{gain.mean():+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] p {p:.2g}")
        lines.append("| " + " | ".join([name, rows, system, *cells, best or ""]) + " |")
    return "\n".join(lines)


def _by_query(results: list[dict]) -> np.ndarray:
    return np.mean([result["figures"]["dense"] for result in results], axis=0)
