"""Live: runs in a notebook, with their screens, while the cell is busy.

`training_runs`, `inference_runs` and `comparison_runs` are what magics start, `watched` is a pass
over some data: `screens` feed the widgets from a run, `progress` shows tables where there are none,
`event_pump` lets clicks in, `background` waits for runs in other threads, `time_left` estimates,
`display_hook` shows no result twice, `cell_errors` ends a cell with one line.
"""
