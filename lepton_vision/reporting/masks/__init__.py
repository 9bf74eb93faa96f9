"""Pages of an evaluation of masks."""
