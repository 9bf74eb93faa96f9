"""Runtimes beside torch, and bundles exported for them."""
