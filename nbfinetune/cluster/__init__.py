"""Cluster: processes, here or on other machines, that work for a notebook.

`engines` are processes by rank, `pools` starts, finds and calls them by ipyparallel, `answering`
runs in them; `hosts` says what they have, `owners` whose they are, `overview` what there is.
"""
