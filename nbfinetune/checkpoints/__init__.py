"""Checkpoints: learners as files, written whole or not at all, never unpickled.

`safetensors_file` (tensors with a JSON header and a digest), `header` and `fitting` (what is
checked before anything is changed), `checkpoint` (save, load, export), `going_on` (what a fit needs
to go on from a file).
"""
