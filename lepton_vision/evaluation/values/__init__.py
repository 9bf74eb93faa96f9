"""Evaluation of predicted numbers: agreement with the truth, and intervals of stated coverage."""
