"""Inputs of a scoring run."""
