"""Data: from picture files and labels to batches.

`loaders` has `ImageDataLoaders`. Below it: `arguments` (what users give, as plain values),
`picture_files` and `images` (which files are pictures, and any of them to RGB), `labels`,
`csv_files`, `splits`, `duplicates` and `corrections` (what class a file has, on which side it is,
and what is doubtful about that), `datasets` and `image_cache` (decoded pictures), `augmentation`
and `transforms` (batches to inputs), `samples` (data to try things on).
"""
