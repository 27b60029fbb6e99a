"""Vectors that were computed once: of a base model, which stays the same from run to run.

They are found by content: by the digest of the model's files and of how it encodes, and by the digest of the text. A
changed model or text is another one, and nothing that is stale can be found.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np
import xxhash

from m3kit.evaluation.models import LIBRARIES, model_digest
from m3kit.evaluation.vectors import Vectors
from m3kit.progress import say

# The cache takes at most this part of what the disk would have free without it.
SHARE = 0.25
# SQLite takes so many values in one statement, whatever its build.
AT_ONCE = 500


class VectorCache:
    """The vectors of one model with one way to encode, in one SQLite file.

    A cache is a help, not a need: where it cannot be read or written the reason is told once and it is empty from then
    on.
    """

    def __init__(self, folder: Path, model: Path, encoding: dict) -> None:
        key = {"model": model_digest(model), "encoding": encoding, "versions": [version(name) for name in LIBRARIES]}
        name = xxhash.xxh3_128_hexdigest(json.dumps(key, sort_keys=True).encode())
        self.file = folder / f"{name}.sqlite"
        self.found = 0
        self._connection: sqlite3.Connection | None = None
        self._usable = True

    def _open(self) -> sqlite3.Connection | None:
        """The connection, which ``close`` may have closed; None where the cache cannot be used."""
        if self._connection or not self._usable:
            return self._connection
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._room = _make_room(self.file)
            self._connection = sqlite3.connect(self.file, timeout=60)
            # A cache that a power cut spoils is made anew; no vector is worth waiting for the disk.
            self._connection.execute("PRAGMA synchronous = OFF")
            self._connection.execute("PRAGMA page_size = 16384")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors (text BLOB PRIMARY KEY, dense BLOB, lexical BLOB, colbert BLOB)"
            )
            os.utime(self.file)
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)
        return self._connection

    def get(self, kind: str, texts: Sequence[str]) -> dict[int, tuple[np.ndarray, dict | None, np.ndarray | None]]:
        """What is known, by the text's number: dense, lexical and colbert as in ``Vectors``. ``kind``: of encoding."""
        keys = [_text_key(kind, text) for text in texts]
        rows: dict[bytes, tuple] = {}
        try:
            connection = self._open()
            if not connection:
                return {}
            for start in range(0, len(keys), AT_ONCE):
                some = keys[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                for key, *blobs in connection.execute(f"SELECT * FROM vectors WHERE text IN ({marks})", some):
                    dense, lexical, colbert = (blob and _unpack(blob) for blob in blobs)
                    rows[key] = (dense, lexical if lexical is None else _lexical_dict(lexical), colbert)
        except (sqlite3.Error, ValueError, EOFError) as error:
            rows = {}
            self._give_up(error)
        known = {number: rows[key] for number, key in enumerate(keys) if key in rows}
        self.found += len(known)
        return known

    def put(self, kind: str, texts: Sequence[str], vectors: Vectors) -> None:
        """Keep the vectors of these texts, as long as there is room."""
        connection = self._open()
        if not connection or self._room <= 0:
            return
        try:
            with connection:
                connection.executemany(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", self._rows(kind, texts, vectors)
                )
        except sqlite3.Error as error:
            self._give_up(error)

    def _rows(self, kind: str, texts: Sequence[str], vectors: Vectors) -> Iterator[tuple]:
        for number, text in enumerate(texts):
            row = [_text_key(kind, text), _pack(vectors.dense[number]), None, None]
            if heads := vectors.heads:
                row[2:] = _pack(_lexical_array(heads[0][number])), _pack(heads[1][number])
            self._room -= sum(len(blob) for blob in row if blob)
            if self._room <= 0:
                self._tell("is full; the vectors of further texts are computed anew each time")
                return
            yield tuple(row)

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        self._tell(f"cannot be used ({error}); every text is encoded anew")
        with suppress(sqlite3.Error, OSError):
            self.close()
            # What is broken stays broken; a disk that is full or a file that is locked is another matter.
            if not isinstance(error, (OSError, sqlite3.OperationalError)):
                self.file.unlink()

    def _tell(self, what: str) -> None:
        say(f"The cache of vectors in {self.file.parent} {what}.")


def _make_room(ours: Path) -> int:
    """Bytes that may be added to the cache; where these are few, the files of other models go, the oldest first."""
    folder = ours.parent
    files = sorted(folder.glob("*.sqlite"), key=lambda file: file.stat().st_mtime)
    held = {file: file.stat().st_size for file in files}
    free = shutil.disk_usage(folder).free
    limit = int(SHARE * (free + sum(held.values())))
    for file in files:
        if sum(held.values()) <= limit / 2:
            break
        if file != ours:
            file.unlink(missing_ok=True)
            del held[file]
    return limit - sum(held.values())


def _text_key(kind: str, text: str) -> bytes:
    return xxhash.xxh3_128_digest(f"{kind}\0{text}".encode("utf-8", "surrogatepass"))


def _pack(array: np.ndarray) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=False)
    return packed.getvalue()


def _unpack(blob: bytes) -> np.ndarray:
    return np.load(io.BytesIO(blob), allow_pickle=False)


def _lexical_array(weights: dict[str, float]) -> np.ndarray:
    """{token id as text: weight} as one array of pairs; a token id has as many bits as a weight."""
    array = np.empty(len(weights), dtype=[("token", np.int32), ("weight", np.float32)])
    array["token"] = [int(token) for token in weights]
    array["weight"] = list(weights.values())
    return array


def _lexical_dict(array: np.ndarray) -> dict[str, np.float32]:
    return {str(token): weight for token, weight in zip(array["token"].tolist(), array["weight"], strict=True)}
