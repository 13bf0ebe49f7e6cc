"""Checkpoints: learners as files, written whole or not at all, never unpickled.

`safetensors_file` (tensors with a JSON header), `checkpoint` (save, load, export), `going_on` (what
a fit needs to go on from a file).
"""
