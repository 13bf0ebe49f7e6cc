"""Networks: a pretrained body and a new head, in layer groups.

`backbones` (networks by name), `classifiers` (found and taken off), `outputs` (the logits in what
a network gives), `weights_file` (state dicts of others), `heads` (features to logits),
`layer_groups` (freezing, a rate a group, AdamW), `families` (what is particular to libraries),
`assembly` (body and head in a row), `skeletons` (networks without memory),
`precision` (the number type of a pass), `weights_digest` (the same network or not).
"""
