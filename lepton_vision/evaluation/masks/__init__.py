"""Evaluation of segmentation masks: overlap, surfaces, lesions."""
