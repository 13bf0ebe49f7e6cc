"""Data: from picture files and labels to batches.

`loaders` has `ImageDataLoaders`. Below it: `images` (any file to RGB), `labels`, `splits` and
`corrections` (what class a file has, and on which side it is), `datasets` and `image_cache`
(decoded pictures), `augmentation` and `transforms` (batches to inputs), `taken_loaders` (what a
learner follows), `numbers` (for each class or channel), `samples` (data to try things on).
"""
