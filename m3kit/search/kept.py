"""Vectors of passages: computed once, kept in a folder beside the run, and found again by what they were made of."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz
from xxhash import xxh3_64_hexdigest, xxh3_128_hexdigest

from m3kit.encoding.encode import Encoder
from m3kit.encoding.models import model_digest
from m3kit.encoding.scores import Vocabulary
from m3kit.evaluation.retrieval import CHARACTERS_A_TOKEN, chunks
from m3kit.progress import bar, say

FOLDER, VECTORS, LEXICAL, COLBERT = ".search", "vectors.npz", "lexical.npz", "colbert.npy"
# Above this, in bytes, ColBERT vectors are computed anew for the passages that are ranked by them. For bge-m3 it is
# about 10,000 passages of 100 tokens.
MOST_COLBERT = 2 * 2**30
# What decides nothing about a passage's vectors.
OF_QUERIES = ("query_max_len", "query_instruction_for_retrieval", "batch_size", "device")


@dataclass(frozen=True)
class PassageVectors:
    """``dense`` (passages, size); ``lexical`` weights (passages, tokens), and what the tokens' columns are; of each
    passage its ``colbert`` vectors (tokens, size), or None where they are not held."""

    dense: np.ndarray
    tokens: list[str]
    lexical: csr_matrix
    colbert: list[np.ndarray] | None


def encode(encoder: Encoder, passages: Sequence[str], colbert: bool, small: bool = False) -> PassageVectors:
    """Vectors of all passages. ``colbert``: hold those, as float16 where ``small``."""
    dense, lexical, tokens = [], [], []
    with encoder.progress(len(passages), "passages") as watch:
        for chunk in chunks(passages, encoder.settings.passage_max_len):
            part = encoder.passages(chunk, watch)
            dense.append(part.dense)
            lexical += part.lexical or [{} for _ in chunk]
            if colbert:
                tokens += [vectors.astype(np.float16) if small else vectors for vectors in part.colbert or ()]
    vocabulary = Vocabulary(lexical)
    return PassageVectors(
        np.concatenate(dense), list(vocabulary.columns), vocabulary.matrix(lexical), tokens if colbert else None
    )


def kept(encoder: Encoder, passages: Sequence[str], corpus: Path, folder: Path) -> PassageVectors:
    """Vectors from a folder below this one, one for each model and corpus; made anew where either has changed."""
    name, settings = encoder.model.name, encoder.settings
    place = folder / f"{name}-{xxh3_64_hexdigest(bytes(corpus.resolve()))}"
    with bar(None, f"{name}: reading", ""):
        encoding = {key: value for key, value in asdict(settings).items() if key not in OF_QUERIES}
        content = json.dumps([model_digest(encoder.model.folder), encoding, list(passages)], sort_keys=True)
        about = xxh3_128_hexdigest(content.encode())
        if found := _load(place, about):
            return found
    tokens = sum(min(settings.passage_max_len, len(text) // CHARACTERS_A_TOKEN + 2) for text in passages)
    size = encoder.model.colbert_size if encoder.has_heads else None
    vectors = encode(encoder, passages, bool(size and tokens * size * 2 <= MOST_COLBERT), small=True)
    try:
        _save(vectors, about, place)
    except OSError as error:
        say(f"The vectors are not kept in {folder} ({error.strerror}): the next search computes them again.")
    # ColBERT from the file: memory holds what is looked at.
    return _load(place, about) or vectors


def _save(vectors: PassageVectors, about: str, place: Path) -> None:
    """In place of older ones, all at once."""
    place.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=place.parent) as temporary:
        made = Path(temporary, "made")
        made.mkdir()
        sizes = [len(tokens) for tokens in vectors.colbert or ()]
        tokens = np.array(vectors.tokens, dtype=str)
        np.savez(made / VECTORS, about=np.array(about), dense=vectors.dense, tokens=tokens, sizes=np.array(sizes, int))
        save_npz(made / LEXICAL, vectors.lexical, compressed=False)
        if vectors.colbert:
            shape = (sum(sizes), vectors.colbert[0].shape[1])
            np.concatenate(vectors.colbert, out=np.lib.format.open_memmap(made / COLBERT, "w+", np.float16, shape))
        shutil.rmtree(place, ignore_errors=True)
        made.rename(place)


def _load(place: Path, about: str) -> PassageVectors | None:
    """None where there is nothing whole, or what was made of something else."""
    try:
        with np.load(place / VECTORS) as file:
            if file["about"] != about:
                return None
            dense, tokens, sizes = file["dense"], file["tokens"].tolist(), file["sizes"]
        # Copied where it is written to, which is nowhere; PyTorch warns of what may only be read.
        colbert = np.split(np.load(place / COLBERT, mmap_mode="c"), np.cumsum(sizes)[:-1]) if len(sizes) else None
        return PassageVectors(dense, tokens, load_npz(place / LEXICAL), colbert)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
