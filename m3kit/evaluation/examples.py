"""Queries to look at: those that gained and lost most, what came first before and after, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing

import numpy as np

from m3kit.evaluation.encode import Encoder
from m3kit.evaluation.metrics import HEADLINE
from m3kit.evaluation.retrieval import Found, relevant_passages
from m3kit.evaluation.scores import QueryTokens, hybrid_scores
from m3kit.evaluation.vectors import Vectors

EACH_WAY = 5
RELEVANT = 3
TOKENS = 8
SNIPPET = 300
TOLD_TOKENS = 3
NAMES = {"colbert": "ColBERT"}


def examples(
    encoders: Mapping[str, Encoder], founds: Mapping[str, Found], values: Mapping[str, np.ndarray], score: str
) -> dict:
    """The entry "examples" of metrics.json, of two models.

    ``values``: nDCG@10 of each query by this score. The texts to show are encoded once more: nobody kept the vectors.
    """
    before, after = founds.values()
    gains = np.subtract(*reversed(list(values.values())))
    queries = list(before.data.queries)
    order = np.argsort(-gains, kind="stable")
    gained = [queries[place] for place in order[:EACH_WAY] if gains[place] > 0]
    lost = [queries[place] for place in order[::-1][:EACH_WAY] if gains[place] < 0]
    shown = {query: _passages([before, after], query, score) for query in [*gained, *lost]}
    explained = {name: _explain(encoders[name], founds[name], shown) for name in founds}
    figures = {name: dict(zip(queries, array.tolist(), strict=True)) for name, array in values.items()}

    def example(query: str) -> dict:
        entries = [
            {
                "passage": passage,
                "text": _snippet(before.data.passages[passage]),
                "relevant": before.data.qrels[query].get(passage, 0) >= 1,
                "rank": {name: _rank(found, query, passage, score) for name, found in founds.items()},
                "scores": {name: explained[name][query, passage][0] for name in founds},
                "tokens": {name: explained[name][query, passage][1] for name in founds},
            }
            for passage in shown[query]
        ]
        return {
            "query": query,
            "text": before.data.queries[query],
            HEADLINE: {name: figures[name][query] for name in founds},
            "passages": entries,
            "why": {name: _why(name, entries, found.weights) for name, found in founds.items()},
        }

    return {
        "score": score,
        "metric": HEADLINE,
        "models": list(founds),
        "gained": [example(query) for query in gained],
        "lost": [example(query) for query in lost],
    }


def _passages(founds: Sequence[Found], query: str, score: str) -> list[str]:
    """The relevant passages, and what each model ranked first."""
    relevant = relevant_passages(founds[0].data.qrels[query])[:RELEVANT]
    firsts = [found.passage_ids[found.candidates[query].ranking(score, found.weights)[0]] for found in founds]
    return list(dict.fromkeys([*relevant, *firsts]))


def _rank(found: Found, query: str, passage: str, score: str) -> int | None:
    candidates = found.candidates[query]
    ranked = [found.passage_ids[number] for number in candidates.ranking(score, found.weights)]
    return ranked.index(passage) + 1 if passage in ranked else None


def _explain(
    encoder: Encoder, found: Found, shown: Mapping[str, list[str]]
) -> dict[tuple[str, str], tuple[dict[str, float], list[tuple[str, float]]]]:
    """(query, passage) → each score, and the tokens by which sparse found it."""
    if not shown:
        return {}
    passages = list(dict.fromkeys(passage for some in shown.values() for passage in some))
    with closing(encoder):
        asked = encoder.queries([found.data.queries[query] for query in shown])
        answers = encoder.passages([found.data.passages[passage] for passage in passages])
        return {
            (query, passage): _score_pair(encoder, found, asked, row, answers, passages.index(passage))
            for row, query in enumerate(shown)
            for passage in shown[query]
        }


def _score_pair(
    encoder: Encoder, found: Found, queries: Vectors, row: int, passages: Vectors, column: int
) -> tuple[dict[str, float], list[tuple[str, float]]]:
    dense = float(queries.dense[row].astype(np.float32) @ passages.dense[column].astype(np.float32))
    if not queries.heads or not passages.heads:
        return {"dense": dense}, []
    (our_weights, our_tokens), (their_weights, their_tokens) = queries.heads, passages.heads
    ours, theirs = our_weights[row], their_weights[column]
    products = {token: float(ours[token]) * float(theirs[token]) for token in ours.keys() & theirs.keys()}
    tokens = QueryTokens([our_tokens[row]], encoder.settings.device)
    colbert = tokens.scores([their_tokens[column]], np.array([0]), np.array([0]))[0]
    scores = {"dense": dense, "sparse": sum(products.values(), 0.0), "colbert": float(colbert)}
    best = sorted(products.items(), key=lambda item: (-item[1], item[0]))[:TOKENS]
    words = [(encoder.tokenizer.decode([int(token)]).strip() or "(space)", weight) for token, weight in best]
    return scores | {"hybrid": float(hybrid_scores(scores, found.weights))}, words


def _why(name: str, entries: list[dict], weights: Mapping[str, float]) -> str:
    """What decided that this model's first passage came first, against the best-ranked passage of the other kind."""
    first = min(entries, key=lambda entry: entry["rank"][name] or np.inf)
    others = [entry for entry in entries if entry["relevant"] != first["relevant"]]
    kind = "the relevant passage" if first["relevant"] else "a passage that is not relevant"
    if not others:
        return f"{name} ranked {kind} first."
    other = max(others, key=lambda entry: entry["scores"][name].get("hybrid", entry["scores"][name]["dense"]))
    ours, theirs = first["scores"][name], other["scores"][name]
    weighted = {head: weights[head] * (ours[head] - theirs[head]) for head in weights if head in ours}
    head = max(weighted, key=lambda head: weighted[head])
    told = f"{name} ranked {kind} first, most of all for its {NAMES.get(head, head)} score: "
    told += f"{ours[head]:.3f} against {theirs[head]:.3f}"
    if head == "sparse" and first["tokens"][name]:
        # Isolated, for a word may be written from right to left.
        words = [f"\u2068{word}\u2069 {weight:.3f}" for word, weight in first["tokens"][name][:TOLD_TOKENS]]
        told += f" ({', '.join(words)})"
    return told + "."


def _snippet(text: str) -> str:
    return text if len(text) <= SNIPPET else text[: SNIPPET - 1] + "…"
