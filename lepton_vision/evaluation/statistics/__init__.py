"""Statistics on plain arrays: intervals, tests, ranking."""
