"""Rendering: tables, plots and pictures as text, HTML and SVG, from plain values.

`names` (any text in one line), `tables` (rows, sheets of pictures), `svg` (plots), `downsampling`
(few points of a long line).
"""
