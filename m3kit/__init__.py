"""A kit for fine-tuning BAAI/bge-m3 with FlagEmbedding."""
