"""A scoring run on several machines."""
