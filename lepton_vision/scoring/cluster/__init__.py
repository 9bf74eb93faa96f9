"""Scoring on several machines."""
