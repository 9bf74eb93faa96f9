"""Runtimes other than torch, and the export of bundles for them."""
