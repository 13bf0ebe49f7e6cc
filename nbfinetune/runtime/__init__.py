"""Runtime: what a run takes from the process and the machine, and gives back.

`device` (what to work on), `rng` (random generators), `interrupts` (held back while something must
be whole), `malloc` (freed memory is kept for the next batch), `cpu_contention` (other work that
slows threads), `memmap` (large tensors in memory or in a file), `room` (how much they may take),
`own_files` (written whole, and by one process at a time).
"""
