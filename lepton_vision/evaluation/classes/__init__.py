"""Evaluation of classification: figures, curves, analyses, comparison."""
