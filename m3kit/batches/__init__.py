"""Prepared rows become batches of tokens. A batch depends on its number alone. Nothing here knows of a model."""
