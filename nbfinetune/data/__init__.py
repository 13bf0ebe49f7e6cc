"""Data: from files and labels to batches.

`loaders` has `ImageDataLoaders`, `loader_views` what these show. Below them: `arguments` (labels,
marks and items as users give them), `labels`, `sources` (tables, data sets, arrays, pictures to
predict), `splits` and `corrections` (what class a file has, on which side it is, and what is
doubtful about that), `datasets` and `image_cache` (decoded pictures), `augmentation` and
`transforms` (batches to inputs), `numbers` (one for each class or channel), `taken_loaders` (what
a learner follows of its loaders), `samples` (data to try things on).
"""
