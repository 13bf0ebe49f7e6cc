"""Rendering: tables, plots and pictures as text, HTML and PNG, from plain values.

`names` (any text in one line), `tables` (rows, sheets of pictures), `figures` (plots, drawn by
matplotlib) and `axes` (what is in them), `downsampling` (few points of a long line).
"""
