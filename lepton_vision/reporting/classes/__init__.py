"""Report pages of classification."""
