"""Cluster: processes, here or on other machines, that work for a notebook.

`engines` are processes by rank, `pools` starts, finds and calls them by ipyparallel, `answering`
runs in them; `hosts` says what they have, `owners` whose they are, `overview` what there is. `data`
sends data to their hosts, `travel` lets a learner travel there and back. `remote_run` is a call
that they do, `worker` their part in it, `runs` what goes on between both.
"""
