"""Scripts: what was done with a learner, as a Python script that repeats it."""
