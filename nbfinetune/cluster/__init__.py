"""Cluster: processes, here or on other machines, that work for a notebook.

`engines` starts, finds and calls them, `answering` is what runs in them, `hosts` says what they
have, `owners` whose they are. `travel` takes calls there and results back, `data` takes the data.
"""
