"""Progress display for long-running calls: the doorway to rich for every stage."""
