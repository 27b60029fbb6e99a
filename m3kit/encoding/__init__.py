"""Texts to vectors and scores: what evaluation, mining, teachers, the recipe and search share."""
