"""Model card and reporting checklists."""
