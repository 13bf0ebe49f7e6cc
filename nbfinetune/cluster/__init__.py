"""Cluster: processes, here or on other machines, that work for a notebook.

`engines` are processes by rank, `pools` starts, finds and calls them by ipyparallel, `answering`
runs in them; `hosts` says what they have, `owners` whose they are, `overview` what there is.
`data` sends data to hosts, `travel` takes calls there and results back. `remote_run` is a call that
workers do, `worker` their part in it, `runs` what goes on between both.
"""
