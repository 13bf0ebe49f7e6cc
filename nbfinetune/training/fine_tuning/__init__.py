"""Fine-tuning: the two stages of `fine_tune`, and what they do by what they see.

`stages` has the method, `recipe` the rule that chooses how all layers train, `second_stage` what
it chose, `refit` what fits the head anew at the end of both.
"""
