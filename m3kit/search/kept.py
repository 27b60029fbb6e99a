"""Vectors of passages: computed once, kept in a folder beside the run, and found again by what they were made of."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from xxhash import xxh3_128_hexdigest

from m3kit.encoding.encode import Encoder
from m3kit.encoding.models import model_digest
from m3kit.encoding.scores import Vocabulary
from m3kit.evaluation.retrieval import CHARACTERS_A_TOKEN, chunks
from m3kit.progress import bar, say

FOLDER, VECTORS, COLBERT, ABOUT = ".search", "vectors.npz", "colbert.f16", "about.json"
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
    """Vectors from a folder below this one; where it has none of this model and these passages, they are made."""
    name = encoder.model.name
    encoding = {key: value for key, value in asdict(encoder.settings).items() if key not in OF_QUERIES}
    with bar(None, f"{name}: reading", ""):
        made_of = {"model": model_digest(encoder.model.folder), "encoding": encoding}
        content = json.dumps([made_of, list(passages)], sort_keys=True).encode()
        place = folder / xxh3_128_hexdigest(content)
        about = {"for": name, "corpus": str(corpus.resolve()), **made_of}
        _delete_stale(folder, about, place)
        if found := _load(place):
            return found
    tokens = sum(min(encoder.settings.passage_max_len, len(text) // CHARACTERS_A_TOKEN + 2) for text in passages)
    size = encoder.model.colbert_size if encoder.has_heads else None
    vectors = encode(encoder, passages, bool(size and tokens * size * 2 <= MOST_COLBERT), small=True)
    try:
        _save(vectors, about, place)
    except OSError as error:
        say(f"The vectors are not kept in {folder} ({error.strerror}): the next search computes them again.")
        return vectors
    # ColBERT from the file: memory holds what is looked at.
    return _load(place) or vectors


def _delete_stale(folder: Path, about: dict, place: Path) -> None:
    """Delete what the same one of the two models left for the same corpus, before either changed."""
    for file in folder.glob(f"*/{ABOUT}"):
        try:
            other = json.loads(file.read_bytes())
        except (OSError, ValueError):
            other = about
        if file.parent != place and all(other.get(key) == about[key] for key in ("for", "corpus")):
            shutil.rmtree(file.parent, ignore_errors=True)


def _save(vectors: PassageVectors, about: dict, place: Path) -> None:
    place.parent.mkdir(exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=place.parent))
    temporary.chmod(0o755)
    try:
        lexical = vectors.lexical
        arrays = {"data": lexical.data, "indices": lexical.indices, "indptr": lexical.indptr}
        if vectors.colbert:
            arrays["sizes"] = np.array([len(tokens) for tokens in vectors.colbert])
            with open(temporary / COLBERT, "wb") as file:
                for tokens in vectors.colbert:
                    file.write(tokens.tobytes())
        np.savez(temporary / VECTORS, dense=vectors.dense, tokens=np.array(vectors.tokens, dtype=str), **arrays)
        (temporary / ABOUT).write_text(json.dumps(about, indent=2), "utf-8")
        shutil.rmtree(place, ignore_errors=True)
        os.rename(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _load(place: Path) -> PassageVectors | None:
    """None where there is nothing, or nothing whole."""
    try:
        with np.load(place / VECTORS) as file:
            arrays = dict(file)
        tokens, colbert = arrays["tokens"].tolist(), None
        shape = (len(arrays["dense"]), len(tokens))
        lexical = csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
        if "sizes" in arrays:
            count = int(arrays["sizes"].sum())
            # Copied where it is written to, which is nowhere; PyTorch warns of what may only be read.
            held = np.memmap(place / COLBERT, np.float16, "c").reshape(count, -1)
            colbert = np.split(held, np.cumsum(arrays["sizes"])[:-1])
        return PassageVectors(arrays["dense"], tokens, lexical, colbert)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
