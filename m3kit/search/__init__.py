"""Search a run's passages with the model before and after training, side by side."""
