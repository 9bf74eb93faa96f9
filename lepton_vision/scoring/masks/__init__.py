"""Masks that a scoring run writes."""
