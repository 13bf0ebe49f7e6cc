"""Sources: what pictures and labels come as, beside folders and lists.

`tables` (rows that name files and labels) as `csv_files` or as pandas `frames`; `data_sets` (of
torchvision, `hub` ones of Hugging Face, `arrays`) as items (picture, class index); `reading`
decodes each picture once; `prediction_sets` are pictures to predict, with labels or without.
"""
