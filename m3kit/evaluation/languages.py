"""Tells the language of a text."""

from __future__ import annotations

from functools import lru_cache

# Texts looked at, and guesses that the model is less sure of are often wrong.
SAMPLE, SURE = 500, 0.95


@lru_cache(maxsize=1)
def identifier():
    # Half a second and 60 MB: only where there is something to identify.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
