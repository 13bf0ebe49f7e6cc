"""LR finder: which learning rate to train with.

`search` (range tests and short runs that change nothing; `arguments` checks what they are given,
`sweeps` set their rates, `snapshot` puts the learner back), `suggestions` (rates read off a curve,
and what it is worth), `results` (what was found, as text and as a picture).
"""
