"""LR finder: which learning rate to train with.

`search` (range tests and short runs that change nothing), `suggestions` (rates read off a curve,
and what it is worth), `results` (what was found, as text and as a picture).
"""
