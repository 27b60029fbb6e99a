"""From what was counted in a run to figures that can be compared, and to tables of them."""

from __future__ import annotations

import statistics

from side_by_side.cases import Case

# Dense FLOP/s in bf16 or fp16 as the makers state them, by a part of the card's name. The first that fits counts.
CARDS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12, "A10G": 70e12, "A10": 125e12, "A40": 150e12,
    "L40S": 362e12, "L4": 121e12, "RTX 4090": 165e12, "RTX 3090": 71e12, "V100": 125e12, "T4": 65e12,
}  # fmt: skip
COLUMNS = (
    ("CPU s a step", "cpu_seconds_per_step", "{:.3g}"),
    ("s a step", "seconds_per_step", "{:.3g}"),
    ("rows/s", "rows_per_second", "{:.3g}"),
    ("pairs a CPU s", "pairs_per_cpu_second", "{:,.4g}"),
    ("texts a step", "texts_per_step", "{:.4g}"),
    ("tokens/s", "tokens_per_second", "{:,.0f}"),
    ("padding", "padding", "{:.0%}"),
    ("peak GiB", "peak_gib", "{:.2f}"),
    ("above GiB", "above_gib", "{:.2f}"),
    ("of the card's FLOP/s", "share_of_card", "{:.0%}"),
)
# What a ratio tells nothing of.
NO_RATIO = ("texts_per_step", "padding", "share_of_card")


def median(repeats: list[dict]) -> dict:
    """Of each figure that is a number; of the others the first."""
    numbers = {name: [run[name] for run in repeats] for name, value in repeats[0].items() if not isinstance(value, str)}
    return repeats[0] | {name: statistics.median(values) for name, values in numbers.items()}


def derive(counted: dict, hidden: int) -> dict:
    """``hidden``: the length of a vector, of ColBERT's too."""
    steps, seconds, cpu = counted["steps"], counted["seconds"], counted["cpu_seconds"]
    texts, tokens = counted["texts"], counted["tokens"]
    figures = counted | {
        "cpu_seconds_per_step": cpu / steps,
        "seconds_per_step": seconds / steps,
        "rows_per_second": counted["rows"] / seconds,
        "rows_per_cpu_second": counted["rows"] / cpu,
        "pairs_per_cpu_second": counted["pairs"] / cpu,
        "texts_per_step": texts / steps,
        "tokens_per_second": tokens / seconds,
        "padding": 1 - tokens / counted["positions"],
        "peak_gib": counted["peak_bytes"] / 2**30,
        "above_gib": counted["above_bytes"] / 2**30,
        # In 32 bits, without padding: a dense vector a text, a ColBERT vector a token but the first, a weight a token.
        "vector_bytes_per_step": 4 * (texts * hidden + (tokens - texts) * hidden + tokens) / steps,
    }
    card = next((peak for name, peak in CARDS.items() if name in counted["device"]), None)
    if card:
        # Forward and backward of the layers; what is computed again to save memory is no work done.
        figures["share_of_card"] = 6 * counted["parameters_but_words"] * figures["tokens_per_second"] / card
    return figures


def judge(case: Case, shape: str, runs: dict[str, dict]) -> list[dict]:
    """What the case should show, and what it shows; nothing about runs that were left out."""
    judged = []
    for promise in case.promises:
        try:
            value = promise.value(runs)
        except KeyError:
            continue
        bound = {"at_most": promise.at_most, "at_least": promise.at_least}
        judged.append({"says": promise.says, "value": value, **{n: b for n, b in bound.items() if b is not None}})
        # Where it is promised for another shape the figure is told, and nothing judged.
        if promise.shape in (None, shape):
            judged[-1]["kept"] = promise.kept(value)
    return judged


def markdown(result: dict) -> str:
    """A case on a shape: figures of each run, their ratios to the first one's, and the promises."""
    runs = result["runs"]
    columns = [column for column in COLUMNS if any(column[1] in run for run in runs.values())]
    lines = [f"### {result['case']}, {result['shape']}", "", result["about"], ""]
    lines += ["| | " + " | ".join(title for title, *_ in columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, run in runs.items():
        lines.append(f"| {name} | " + " | ".join(form.format(run[figure]) for _, figure, form in columns) + " |")
    first, *others = runs
    for name in others:
        ratios = [
            "" if figure in NO_RATIO else f"{runs[name][figure] / runs[first][figure]:.2f}×" for _, figure, _ in columns
        ]
        lines.append(f"| {name} : {first} | " + " | ".join(ratios) + " |")
    lines += ["", *(f"- {_sentence(promise)}" for promise in result["promises"]), *_encoder(runs)]
    return "\n".join(lines)


def _sentence(promise: dict) -> str:
    word, bound = ("at most", promise["at_most"]) if "at_most" in promise else ("at least", promise["at_least"])
    told = f"{promise['says']}: {promise['value']:.3g} ({word} {bound:g}"
    return told + (")" if "kept" not in promise else ": kept)" if promise["kept"] else ": NOT KEPT)")


def _encoder(runs: dict[str, dict]) -> list[str]:
    return [
        f"- {name}: {run['encoder_seconds'] / run['steps']:.3g} s of a step in the encoder's layers, "
        f"{run['outside_encoder_seconds'] / run['steps']:.3g} s in the rest of forward and backward"
        for name, run in runs.items()
        if "encoder_seconds" in run
    ]
