"""A metrics.json, made up: every figure another, so that one in the wrong place is noticed."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from m3kit.records import SCORES, Change, Example, First, Metrics, ModelFigures, Retrieval, Served, Serving

MEASURES = ("nDCG@10", "success@10", "MRR@10", "recall@100")
LEVELS = {"dense": 0.42, "sparse": 0.55, "colbert": 0.5, "hybrid": 0.6}
TASKS = {"sts": ("Spearman",), "classification": ("nearest label", "probe"), "clustering": ("V-measure",)}
ARABIC = "أين يمكنني استعادة حقيبتي المفقودة؟"
HOSTILE = "<script>alert('x')</script> & \"quotes\" | pipes $x$ [name](http://a.b) **bold** \u202e turned 🧳 "
LONG_WORD = "Donaudampfschifffahrts" * 450
VERDICT = (
    "The right passage is among the first ten for {after} of 83 questions; before, for {before}.\n"
    "Serve the hybrid score: {hybrid:.3f} nDCG@10, before {base:.3f}.\n"
    "Use it."
)


def make_metrics(
    names: tuple[str, ...] = ("base", "tuned"),
    *,
    retrieval: bool = True,
    tasks: bool = True,
    general: bool = True,
    headless: tuple[str, ...] = (),
    gain: float = 0.12,
    texts: tuple[str, ...] = (ARABIC, HOSTILE + "where is my bag", LONG_WORD, "Where is gate 4?", "¿Dónde está?"),
) -> Metrics:
    """``headless`` models have a dense score alone, ``gain`` is how much better the last one is."""
    random = Random(7)
    models = {
        name: _model(random, name, gain * place / max(len(names) - 1, 1), name not in headless, retrieval, tasks)
        for place, name in enumerate(names)
    }
    metrics = Metrics(models=models, eval_data="example_data/eval", settings=_settings(), judged_on="Judged on half.")
    outcome = "single" if len(names) == 1 else "better" if gain > 0 else "worse"
    if tasks:
        counts = {"sts": {"pairs": 40}, "classification": {"texts": 60}, "clustering": {"texts": 61}}
        compared = {name: _changes(random, models[names[0]].tasks, models[name].tasks) for name in names[1:]}
        metrics = replace(metrics, tasks=counts, task_comparisons=compared)
    if not retrieval:
        return replace(metrics, outcome=outcome, verdict="All tasks moved.")
    lead = "dense" if headless else "hybrid"
    first, last = models[names[0]].figures(lead), models[names[-1]].figures(lead)
    counted = [round(83 * one["success@10"]) for one in (first, last)]
    told = VERDICT.format(before=counted[0], after=counted[1], base=first["nDCG@10"], hybrid=last["nDCG@10"])
    sizes = {"queries": 83, "queries_left_out": 2, "passages": 1238, "relevant_pairs": 91}
    return replace(
        metrics,
        **sizes,
        verdict=told,
        outcome=outcome,
        lead=lead,
        bm25=_measures(random, 0.52),
        comparisons=_compared(random, models),
        serving=_serving(random, names),
        general=_general(random, names, headless, gain) if general else None,
        examples=[_example(place, text, names) for place, text in enumerate(texts)],
    )


def _settings() -> dict:
    versions = {"FlagEmbedding": "1.4.2", "torch": "2.13.0"}
    return {"device": "cuda:0", "precision": "fp16", "batch_size": 32, "candidates": 200, "versions": versions}


def _measures(random: Random, level: float) -> dict[str, float]:
    return {name: level + place / 20 + random.uniform(0, 0.01) for place, name in enumerate(MEASURES)}


def _model(random: Random, name: str, gain: float, heads: bool, retrieval: bool, tasks: bool) -> ModelFigures:
    scores = [score for score in SCORES if retrieval and (heads or score == "dense")]
    settings = {"pooling_method": "cls", "normalize_embeddings": True, "query_max_len": 128, "passage_max_len": 256}
    figures = {task: {metric: 0.6 + gain + random.uniform(0, 0.1) for metric in of} for task, of in TASKS.items()}
    return ModelFigures(
        **{score: _measures(random, LEVELS[score] + gain) for score in scores},
        tasks=figures if tasks else {},
        path="BAAI/bge-m3" if name == "base" else f"outputs/{name}",
        settings=settings | {"query_instruction_for_retrieval": None},
        notes=[] if heads else [f"{name} has no sparse_linear.pt."],
        seconds=random.uniform(3, 9),
    )


def _general(random: Random, names: tuple[str, ...], headless: tuple[str, ...], gain: float) -> Retrieval:
    models = {
        name: _model(random, name, -gain * place / max(len(names) - 1, 1) / 3, name not in headless, True, False)
        for place, name in enumerate(names)
    }
    return Retrieval(models, "general", 120, 0, 2000, 131, _compared(random, models))


def _compared(random: Random, models: dict[str, ModelFigures]) -> dict:
    base, *others = models
    figures = {name: {score: getattr(model, score) for score in SCORES} for name, model in models.items()}
    return {name: _changes(random, figures[base], figures[name]) for name in others}


def _changes(random: Random, before: dict, after: dict) -> dict[str, dict[str, Change]]:
    changes: dict = {}
    for score in before:
        for metric, value in (before[score] or {}).items():
            if after.get(score):
                change, half = after[score][metric] - value, random.uniform(0.03, 0.07)
                word = "no difference" if abs(change) <= half else "better" if change > 0 else "worse"
                one = Change(change, (change - half, change + half), random.uniform(0.0001, 0.04), word)
                changes.setdefault(score, {})[metric] = one
    return changes


def _serving(random: Random, names: tuple[str, ...]) -> Serving:
    def served(place: int) -> Served:
        value = 0.65 + 0.1 * place + random.uniform(0, 0.01)
        against = {"base_served": Change(0.1, (0.05, 0.15), 0.002, "better")} if place else {}
        weights = {"dense": 1.0, "sparse": 0.3, "colbert": 0.0, "bm25": 0.1}
        says = "dense + 0.3 sparse + 0.1 BM25"
        return Served(weights, says, {"nDCG@10": value}, (0.5, 0.7), {"dense": 0.5}, against)

    return Serving(83, 5, None, {name: served(place) for place, name in enumerate(names)})


def _example(place: int, text: str, names: tuple[str, ...]) -> Example:
    right, wrong = First("d7", f"{text} … is kept at the desk", True), First("d<9>", "Bags are weighed.", False)
    first = {name: right if (number == len(names) - 1) == (place < 3) else wrong for number, name in enumerate(names)}
    return Example(f"q{place}", text, right.text, first, {name: 1 if first[name].relevant else 57 for name in names})
