"""Runs: what happens in the workers, told to the notebook, and what is asked of them from there.

In a worker: `engine_run` (a call in a thread), `emitting` (the callback that tells), `event_log`,
`checkpoint_relay`. In the notebook: `watching` (asks, and finds who is gone), `replay` (the same
events here), `failures` (who failed, in a line), `device_memory`.
"""
