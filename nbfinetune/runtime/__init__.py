"""Runtime: what a run takes from the process and the machine, and gives back.

`device` (what to work on), `rng` (random generators), `interrupts` (held back while something must
be whole), `malloc` (freed memory is kept for the next batch), `openmp` (how threads wait),
`cpu_contention` (other work that slows them), `memmap` (large tensors in memory or in a file).
"""
