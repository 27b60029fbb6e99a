"""From prepared rows to batches of tokens, each told by its number alone. Nothing here knows of a model."""
