"""Networks: a pretrained body and a new head, in layer groups.

`backbones` (networks by name), `heads` (features to logits), `layer_groups` (freezing, a rate a
group, AdamW), `precision` (the number type of a pass), `weights_digest` (the same network or not).
"""
