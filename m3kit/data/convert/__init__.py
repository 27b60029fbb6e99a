"""Rows of each task turned into rows that FlagEmbedding trains on.

A converted row is ``{"query": str, "pos": [str], "neg": [str], "prompt": str, "type": str, …}``. It always has a
``prompt`` (D1), lists that are never empty (D2), and, as far as the set has them, as many different negatives as its
group size takes (D3). ``type`` is FlagEmbedding's and sets the group size there (D6):

- ``only_1neg``: one positive, one negative; no negative is ever encoded seven times
- ``retrieval``: the full group
- ``symmetric_sts``, ``symmetric_clustering``: the full group, the prompt goes before passages too
- ``graded_sts``: a pair with its score in ``pos_scores``, for the kit's trainer alone. FlagEmbedding takes such rows
  for ``retrieval``: every pair a positive, whatever its score
- ``symmetric_class``: as many as there are labels, at most the full group

Each task has a module with two functions. ``plan`` looks at the whole set, by keys alone: it gives each row its fate
and keeps what ``convert`` needs as further columns of the index. ``convert`` then makes the prepared rows of any part
of the set, in any process.
"""
