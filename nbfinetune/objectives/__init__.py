"""Objectives: what is minimised, and what is measured.

`losses` (what a loss takes and gives, and how outputs become probabilities), `loss_weights` (the
weights of classes in it), `logit_adjustment` (a loss for classes of few pictures), `metrics`
(values of an epoch, and which way they should go), `weakest` (the classes that are predicted
worst), `chance` (how probable counts are).
"""
