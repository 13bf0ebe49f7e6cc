"""Objectives: what is minimised, and what is measured.

`losses` (what a loss takes and gives, and how outputs become probabilities), `loss_weights` (the
weights of classes in it), `metrics` (values of an epoch, and which way they should go).
"""
