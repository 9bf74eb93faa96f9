"""Evaluation of masks: overlap, surfaces, lesions."""
