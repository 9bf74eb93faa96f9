"""Report pages of segmentation."""
