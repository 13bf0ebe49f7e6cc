"""Logs: what a run records, sent to where users keep it."""
