"""Evaluation of classes: figures, curves, analyses, comparison."""
