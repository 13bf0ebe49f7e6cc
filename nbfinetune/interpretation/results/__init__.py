"""Results: what was predicted, as rows: `predictions` beside files, `frames` of pandas."""
