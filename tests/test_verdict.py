"""What came of it, in words: the sentences hold the figures of metrics.json, and no success is told without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from m3kit.evaluation.metrics import MEASURES
from m3kit.evaluation.table import render_table
from m3kit.evaluation.verdict import choose_lead, outcome, verdict
from m3kit.records import FOUND, HEADLINE, SCORES, Change, Metrics, ModelFigures, Retrieval, Served, Serving

QUERIES = 80


def change(before: float, after: float, p: float = 0.001) -> Change:
    word = "no difference" if p >= 0.05 else "better" if after > before else "worse"
    return Change(after - before, (after - before - 0.01, after - before + 0.01), p, word)


def retrieval(*values: float, p: float = 0.001, kind=Retrieval, **more):
    """Models that have the same value in all figures of all scores."""
    names = ["base", "tuned"][: len(values)]
    figures = [dict.fromkeys(MEASURES, value) for value in values]
    compared = {score: dict.fromkeys((HEADLINE, FOUND), change(values[0], values[-1], p)) for score in SCORES}
    return kind(
        models={name: ModelFigures(of, of, of, of) for name, of in zip(names, figures, strict=True)},
        queries=QUERIES,
        comparisons={"tuned": compared} if len(values) > 1 else {},
        **more,
    )


def result(*values: float, p: float = 0.001, bm25: float = 0.25, general=(0.5, 0.5), general_p=1.0, says="dense"):
    served = Served({}, says, {HEADLINE: 0.7, FOUND: 0.75}, (0.6, 0.8), {"dense": values[-1]}, {"dense": change(0, 1)})
    metrics = retrieval(
        *values,
        p=p,
        kind=Metrics,
        lead="dense",
        bm25=dict.fromkeys(MEASURES, bm25),
        serving=Serving(QUERIES, 5, None, {"base": served, "tuned": served}),
        general=retrieval(*general, p=general_p) if len(values) > 1 else None,
    )
    metrics = replace(metrics, outcome=outcome(metrics))
    return replace(metrics, verdict=verdict(metrics))


def test_the_first_sentence_counts_questions():
    first, second, *_ = result(0.5125, 0.6375).verdict.splitlines()
    assert first == "The right passage is among the first ten for 51 of 80 questions; before, for 41."
    assert (
        second == "nDCG@10 by dense vectors went from 0.512 to 0.637 (+0.125): better, by more than chance (p = 0.001)."
    )
    alone = result(0.5).verdict.splitlines()
    assert alone[0] == "The right passage is among the first ten for 40 of 80 questions (base, by dense vectors)."
    assert not any(line.startswith("Next") for line in alone)


@pytest.mark.parametrize(
    "values, more, kind, said, advice",
    [
        ((0.5, 0.6), {}, "better", "better, by more than chance", "use it."),
        ((0.5, 0.4), {}, "worse", "The tuned model is WORSE than the base", "keep base; try fewer epochs"),
        ((0.5, 0.51), {"p": 0.4}, "same", "no difference that 80 questions can show (p = 0.4)", "nothing speaks"),
        ((0.5, 0.52), {"p": 0.1}, "same", "no difference", "more test questions: 80 are too few"),
        ((0.5, 0.5), {"p": 1.0}, "same", "nDCG@10 by dense vectors stayed at 0.500: no difference", "nothing speaks"),
        ((0.5, 0.6), {"bm25": 0.7}, "keyword search", "STILL BETTER than every score of tuned", "serve keyword search"),
        ((0.5, 0.6), {"general": (0.5, 0.4), "general_p": 0.01}, "mixed", "It FORGOT", "use it for text like your own"),
        ((0.5, 0.4), {"bm25": 0.7}, "worse", "WORSE than the base", "keep base"),
    ],
)  # fmt: skip
def test_what_came_of_it_and_what_to_do_next(values, more, kind, said, advice):
    metrics = result(*values, **more)
    assert metrics.outcome == kind and said in metrics.verdict
    assert metrics.verdict.splitlines()[-1].startswith(f"Next: {advice}")


@pytest.mark.parametrize(
    ("values", "more"),
    [((0.5, 0.4), {}), ((0.5, 0.5), {}), ((0.5, 0.52), {"p": 0.1}), ((0.5, 0.6), {"bm25": 0.7})]
    + [((0.5, 0.6), {"general": (0.5, 0.4), "general_p": 0.01})],
)
def test_who_trained_by_the_recipe_is_not_told_to_take_it(values, more):
    metrics = result(*values, **more)
    assert "--recipe best" in verdict(metrics) and "recipe" not in verdict(metrics, by_recipe=True)


def test_one_question_is_no_questions():
    assert "1 of 1 question;" in verdict(replace(result(0.6, 0.6), queries=1))


def test_a_model_below_keyword_search_is_never_a_success():
    assert "Plain keyword search (BM25) finds it for 20." in result(0.5, 0.6).verdict
    for p in (0.0001, 0.5, 1.0):
        assert result(0.5, 0.6, p=p, bm25=0.601).outcome == "keyword search"
        assert result(0.5, 0.6, p=p, bm25=0.6).outcome != "keyword search"


def test_which_score_to_serve_and_why():
    told = next(line for line in result(0.5, 0.6, says="dense + 0.1 BM25").verdict.splitlines() if "Serve" in line)
    assert told.startswith("Serve tuned by dense + 0.1 BM25 (hybrid.json): 60 of 80, nDCG@10 0.700, better than dense")
    assert "Serve tuned by its dense vectors" in result(0.5, 0.6).verdict
    assert "Serve plain keyword search" in result(0.5, 0.6, says="BM25").verdict


def test_what_was_forgotten_counts_without_retrieval_too():
    forgotten = result(0.5, 0.6, general=(0.5, 0.4), general_p=0.01)
    better = {"tuned": {"sts": {"Spearman": change(0.5, 0.6)}}}
    assert outcome(replace(forgotten, lead=None, task_comparisons=better)) == "mixed"
    assert outcome(replace(result(0.5, 0.6), lead=None, task_comparisons=better)) == "better"


def test_keyword_search_is_not_to_be_served_and_the_model_used():
    assert result(0.5, 0.6, says="BM25").verdict.splitlines()[-1].startswith("Next: serve keyword search meanwhile")


def test_dense_vectors_are_told_beside_another_lead():
    metrics = replace(result(0.5, 0.6), lead="colbert")
    assert "By dense vectors alone, which a vector database needs, it is 48; before, 40." in verdict(metrics)


def test_the_lead_is_dense_unless_another_is_better_by_more_than_chance():
    random = np.random.default_rng(0)
    dense = random.random(100)
    a_little, much = dense + random.normal(0.001, 0.1, 100), dense + 0.3
    assert choose_lead([{"dense": dense, "colbert": a_little}] * 2) == "dense"
    assert choose_lead([{"dense": dense, "colbert": much}] * 2) == "colbert"
    # Neither model is preferred, and a score that one lacks is none.
    assert choose_lead([{"dense": dense, "sparse": much}, {"dense": dense, "sparse": dense}]) == "sparse"
    assert choose_lead([{"dense": dense, "sparse": much}, {"dense": dense}]) == "dense"


def test_the_changes_shown_add_up():
    # 0.4561 to 0.4655 is +0.0094, but a reader who sees 0.456 and 0.466 (rounded) expects +0.010.
    assert "0.456    0.466   +0.010  better" in render_table(result(0.4561, 0.4656))


# ---- without retrieval ---------------------------------------------------------------------------------------------


def tasks(*found: float) -> Metrics:
    """Models whose nearest label is so often right, and a V-measure of 0.25 each."""
    figures = [{"classification": {"nearest label": value}, "clustering": {"V-measure": 0.25}} for value in found]
    same = Change(0.0, (0.0, 0.0), 1.0, "no difference")
    compared = {"classification": {"nearest label": change(found[0], found[-1])}, "clustering": {"V-measure": same}}
    metrics = Metrics(
        models={f"m{number}": ModelFigures(tasks=of) for number, of in enumerate(figures)},
        tasks={"classification": {"texts": 9, "labels": 2}, "clustering": {"texts": 9, "labels": 2}},
        task_comparisons={"m1": compared} if len(found) > 1 else {},
    )
    return replace(metrics, outcome=outcome(metrics))


def test_without_retrieval_each_task_has_its_sentence():
    first, second, _ = verdict(tasks(0.5, 0.75)).split("\n")
    assert first.startswith("Nearest label of classification went from 0.500 to 0.750 (+0.250): better")
    assert second.startswith("V-measure of clustering stayed at 0.250: no difference that 9 texts can show")
    worse = "The m1 model is WORSE than the m0: Nearest label of classification went from 0.500 to 0.250 (-0.250)"
    assert verdict(tasks(0.5, 0.25)).startswith(worse)
    assert [tasks(0.5, value).outcome for value in (0.75, 0.25)] == ["better", "worse"]
    assert verdict(tasks(0.5)).split("\n")[0] == "Nearest label of classification is 0.500 (m0)."
    # One model alone has no column for the change.
    rows = [line.split() for line in render_table(tasks(0.5)).split("\n")]
    assert ["classification", "nearest", "label", "0.500"] in rows
