"""From what a user types to the steps that a training script runs. Only the standard library is used here."""
