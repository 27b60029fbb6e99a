"""What a model folder is worth, measured alike for every system: by FlagEmbedding's inference class, not by the kit.

Retrieval: nDCG@10 of each query by dense, sparse, ColBERT, hybrid (1 : 0.3 : 1), and dense and ColBERT together, alone
and beside BM25 with each of WEIGHTS. BM25 scores are divided by the query's largest. STS: Spearman. Classification:
accuracy of a logistic probe, of the nearest neighbour and of the nearest label text. Clustering: V-measure of k-means.
Computed in bf16 where the device has it, ranked in 32 bits.
"""

from __future__ import annotations

import contextlib
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr

from referee.sets import DataSet, Test

WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0)
HYBRID = {"dense": 1.0, "sparse": 0.3, "colbert": 1.0}
# ColBERT and hybrid rank these best of dense and of sparse.
CANDIDATES = 100
BATCH = 64


class Model:
    """A folder as FlagEmbedding loads it; without heads it gives dense vectors alone."""

    def __init__(self, folder: Path, pooling: str, max_len: int) -> None:
        from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Runner
        from FlagEmbedding.finetune.embedder.encoder_only.m3.modeling import EncoderOnlyEmbedderM3ModelForInference
        from transformers import AutoTokenizer

        self.max_len = max_len
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.has_heads = all((folder / name).is_file() for name in ("colbert_linear.pt", "sparse_linear.pt"))
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = EncoderOnlyEmbedderM3ModelForInference(
            EncoderOnlyEmbedderM3Runner.get_model(str(folder), colbert_dim=-1),
            tokenizer=self.tokenizer,
            sentence_pooling_method=pooling,
            normalize_embeddings=True,
        ).to(self.device)
        self.model.eval()

    @torch.no_grad()
    def encode(self, texts: list[str], heads: bool) -> tuple[np.ndarray, list[dict[int, float]], list[torch.Tensor]]:
        """(dense (n, D) float32, lexical weights by token, ColBERT vectors (tokens, D')); the last two with heads."""
        order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
        dense, lexical, colbert = [None] * len(texts), [{}] * len(texts), [None] * len(texts)
        unused = set(self.tokenizer.all_special_ids)
        for start in range(0, len(order), BATCH):
            numbers = order[start : start + BATCH]
            batch = self.tokenizer(
                [texts[number] for number in numbers],
                truncation=True,
                max_length=self.max_len,
                padding=True,
                return_tensors="pt",
            ).to(self.device)
            batch.pop("token_type_ids", None)
            with torch.autocast(self.device, torch.bfloat16) if _has_bf16() else contextlib.nullcontext():
                found = self.model(batch, return_dense=True, return_sparse=heads, return_colbert_vecs=heads)
            sizes = batch["attention_mask"].sum(1).tolist()
            for place, number in enumerate(numbers):
                dense[number] = found["dense_vecs"][place].float().cpu().numpy()
                if heads:
                    weights: dict[int, float] = {}
                    values = found["sparse_vecs"][place].flatten().float().tolist()
                    for token, value in zip(batch["input_ids"][place].tolist(), values, strict=True):
                        if token not in unused and value > weights.get(token, 0):
                            weights[token] = value
                    lexical[number] = weights
                    colbert[number] = found["colbert_vecs"][place, : sizes[place] - 1].float().cpu()
        return np.stack(dense), lexical, colbert


@lru_cache
def _has_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_amx_tile_supported()


def measure(model: Model, data: DataSet, heads: bool = True) -> dict[str, list[float] | float]:
    """Figure → a value for each query of retrieval data, or one for the whole."""
    if data.task == "retrieval":
        return _retrieval(model, data.test, heads and model.has_heads, _bm25(data.name, data.test))
    rows = data.test.rows
    if data.task == "sts":
        left, right = (model.encode([row[name] for row in rows], False)[0] for name in ("sentence1", "sentence2"))
        return {"Spearman": float(spearmanr((left * right).sum(1), [row["score"] for row in rows]).statistic)}
    texts, labels = [row["text"] for row in rows], [str(row["label"]) for row in rows]
    vectors = model.encode(texts, False)[0]
    if data.task == "clustering":
        return {"V-measure": _v_measure(vectors, labels)}
    return _classification(model, vectors, labels, data.test.train)


def _retrieval(model: Model, test: Test, heads: bool, bm25: np.ndarray) -> dict[str, list[float]]:
    q_dense, q_lexical, q_colbert = model.encode(test.queries, heads)
    p_dense, p_lexical, p_colbert = model.encode(test.passages, heads)
    scores = {"dense": q_dense @ p_dense.T}
    if heads:
        scores["sparse"] = (_matrix(q_lexical) @ _matrix(p_lexical).T).toarray()
        # What is no candidate stays behind all that are.
        kept = _candidates(scores["dense"]) | _candidates(scores["sparse"]) | _candidates(bm25)
        colbert = np.full_like(scores["dense"], -np.inf)
        for row, tokens in enumerate(q_colbert):
            for column in np.flatnonzero(kept[row]):
                colbert[row, column] = (tokens @ p_colbert[column].T).amax(1).mean()
        scores["colbert"] = colbert
        scores["hybrid"] = sum(weight * scores[name] for name, weight in HYBRID.items())
        scores["dense and colbert"] = scores["dense"] + scores["colbert"]
    found = {"BM25": ndcg(bm25, test.grades)}
    for name, values in scores.items():
        found[name] = ndcg(values, test.grades)
        for weight in WEIGHTS:
            found[f"{name} + {weight:g} BM25"] = ndcg(values + weight * bm25, test.grades)
    return {name: values.tolist() for name, values in found.items()}


def _candidates(scores: np.ndarray) -> np.ndarray:
    count = min(CANDIDATES, scores.shape[1])
    return scores >= -np.partition(-scores, count - 1, axis=1)[:, count - 1 : count]


def _matrix(lexical: list[dict[int, float]], width: int = 2**20) -> csr_matrix:
    ends = np.cumsum([0] + [len(weights) for weights in lexical])
    columns = [token for weights in lexical for token in weights]
    values = [value for weights in lexical for value in weights.values()]
    return csr_matrix((values, columns, ends), shape=(len(lexical), width))


def ndcg(scores: np.ndarray, grades: list[dict[int, int]]) -> np.ndarray:
    """nDCG@10 of each query, gain = grade, as trec_eval has it."""
    top = np.argsort(-scores, axis=1, kind="stable")[:, :10].tolist()
    values = []
    for numbers, relevant in zip(top, grades, strict=True):
        ideal = sorted(relevant.values(), reverse=True)[:10]
        values.append(_dcg(relevant.get(number, 0) for number in numbers) / _dcg(ideal))
    return np.array(values)


def _dcg(gains) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))


_known: dict[str, np.ndarray] = {}


def _bm25(name: str, test: Test) -> np.ndarray:
    """(queries, passages), each row divided by its largest; English stemmer and stop words."""
    if name not in _known:
        import bm25s
        import Stemmer

        def split(texts):
            stemmer = Stemmer.Stemmer("english")
            return bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False)

        index = bm25s.BM25(k1=0.9, b=0.4)
        index.index(split(test.passages), show_progress=False)
        nothing = np.zeros(len(test.passages), np.float32)
        scores = np.stack([index.get_scores(words) if words else nothing for words in split(test.queries)])
        _known[name] = scores / np.maximum(scores.max(1, keepdims=True), 1e-9)
    return _known[name]


def _v_measure(vectors: np.ndarray, labels: list[str]) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    found = [KMeans(len(set(labels)), n_init=3, random_state=seed).fit_predict(vectors) for seed in range(3)]
    return float(np.mean([v_measure_score(labels, clusters) for clusters in found]))


def _classification(model: Model, vectors: np.ndarray, labels: list[str], train: list[dict]) -> dict[str, float]:
    from sklearn.linear_model import LogisticRegression

    known = model.encode([row["text"] for row in train], False)[0]
    known_labels = np.array([str(row["label"]) for row in train])
    names = sorted(set(labels))
    label_vectors = model.encode([name.replace("_", " ") for name in names], False)[0]
    probe = LogisticRegression(C=10, max_iter=1000).fit(known, known_labels)
    predicted = {
        "logistic": probe.predict(vectors),
        "1-NN": known_labels[(vectors @ known.T).argmax(1)],
        "nearest label": np.array(names)[(vectors @ label_vectors.T).argmax(1)],
    }
    return {name: float((found == np.array(labels)).mean()) for name, found in predicted.items()}
