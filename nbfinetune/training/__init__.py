"""Training: a learner's state, and the loop that trains it.

`state` is what all of it works on, and the events of a run; `options` checks what it is given.
`fitting` has the fit methods (`arguments` checks what they are given, and that model and loaders
are as they were; `schedules` are their rates), `loop` the epochs and batches, `callbacks` what
each run has on its events, `monitors` what stops one or keeps its best epoch. `control` takes
requests, `steering` acts on them; `chosen_rates` are the rates that searches leave, `printing`
shows runs as text. `snapshot` puts a learner back as it was. Packages
of their own are `batches`, what goes through the network at once, `fine_tuning` and `resuming`.
"""
