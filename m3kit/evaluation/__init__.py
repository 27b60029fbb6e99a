"""How good a model is at finding the right passages, and whether training made it better."""
