"""LR finder: which learning rate to train with.

`search` (range tests that change nothing; `arguments` checks what they are given, `sweeps` set
their rates), `suggestions` (rates read off a curve, and what it
is worth), `trials` (short runs where that is not much), `results` (what was found), `pictures` (the
same drawn).
"""
