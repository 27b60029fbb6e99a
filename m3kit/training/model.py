"""FlagEmbedding's M3 model with its losses put right."""

from __future__ import annotations

from FlagEmbedding.finetune.embedder.encoder_only.m3 import EncoderOnlyEmbedderM3Model


class M3Model(EncoderOnlyEmbedderM3Model):
    def compute_local_score(self, q_reps, p_reps, compute_score_func=None, **kwargs):
        """Scores of each query with its own group, shape (batch, group).

        Without in-batch negatives the scores that the ensemble is made of are already of that shape. FlagEmbedding
        picks out of them once more, and is left with one candidate a query: a loss of 0, or an IndexError (T2).
        """
        if compute_score_func == self.ensemble_score:
            return self.ensemble_score(q_reps, p_reps, **kwargs)
        return super().compute_local_score(q_reps, p_reps, compute_score_func, **kwargs)
