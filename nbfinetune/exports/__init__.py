"""Exports: learners as files that open without this package.

`export` (which format, and the file of our own), `portable` (the model with all that belongs to it,
and how a file is compared with it), `onnx_file`, `pt2_file`, `hub_folder` (timm's layout),
`timm_networks` (which network of timm is the same), `model_card`.
"""
