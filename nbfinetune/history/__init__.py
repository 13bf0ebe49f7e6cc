"""History: what runs did, as values, as text and as a picture.

`recorder` (the only history of a learner), `report` (curves and epoch table of runs), `screens`
(who shows them).
"""
