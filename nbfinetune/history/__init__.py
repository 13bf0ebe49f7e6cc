"""History: what runs did, as values, as text and as a picture.

`runs` (what a fit did), `recorder` (the only history of a learner), `report` (curves and epoch
table), `verdicts` (what is to be said of them), `plots` (fastai's), `screens` (who shows runs).
"""
