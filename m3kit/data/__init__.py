"""From a user's rows to rows that FlagEmbedding trains on. Nothing here imports torch."""
