"""Magics: parse a line, find the learner, call it, show what it did.

`training`, `networks`, `model`, `interpretation`, `history` and `cluster` are the magics,
`extension` loads them; `lines` reads their words and completes them, `rates` reads learning rates.
"""
