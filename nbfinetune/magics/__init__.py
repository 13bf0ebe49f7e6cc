"""Magics: parse a line, find the learner, call it, show what it did.

`training`, `model` and `interpretation` are the magics, `extension` loads them; `lines` reads their
words and completes them, `rates` reads learning rates.
"""
