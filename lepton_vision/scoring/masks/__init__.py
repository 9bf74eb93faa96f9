"""Masks written by a scoring run."""
