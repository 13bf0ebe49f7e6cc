"""Comparison: which network, and which size of pictures, to train; before anything is trained.

`plan` (what is compared, checked), `comparing` (`compare_networks`), `probe` (one network at one
size), `results` and `pictures` (what was found, in words, as a table and as a chart), `progress`
(how far it is, and the screens that show it), `licences` (of weights, where they are known).
"""
