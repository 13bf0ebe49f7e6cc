"""Training: the loop that trains a learner, and what goes with it.

`fitting` has the fit methods (`arguments` checks what they are given, `schedules` are their rates),
`loop` the epochs and batches, `callbacks` the events, `control` what is asked of a run, `snapshot`
puts a learner back. `feature_cache` keeps what a frozen body gives, `microbatches` save memory,
`metrics` are values.
"""
