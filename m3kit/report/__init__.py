"""The report of a run: JSON in, one HTML page, a model card and plots out."""
