"""Resuming: what is written of a run while it is on, and how a new process goes on with it.

`packing` (values as JSON and tensors), `run_folder` (the files of a run), `runs_root` (all of
them), `description` (whether a learner is the same), `run_state` (all that a run changes, taken and
put back), `places` (where a run goes on), `keeper` (what writes, and how often), `kept_runs` (which
calls), `checkpointing` (its callback), `termination` (SIGTERM), `resume` (going on),
`undo` (going back), `ledger` (what was done) and `searches`.
"""
