"""Pages of an evaluation of classes."""
