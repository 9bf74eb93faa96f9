"""Pictures and words of predicted numbers."""
