"""FlagEmbedding's M3 training, subclassed where it has a defect. Run as ``torchrun -m m3kit.training``."""
