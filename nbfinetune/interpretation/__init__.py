"""Interpretation: what a learner predicts, and what it gets wrong.

`prediction` (validate, get_preds, predict), `classification` and `multi_label` (one pass, looked
at from all sides), `sample_predictions` (what is kept of each item), `given` (predictions as users
bring them), `confusion` (counts and scores, and the comparison of two models),
`label_issues` (labels worth a look), `matrix_view`, `matrix_options` and `matrix_report` (the
confusion matrix as values, as text and as a picture), `item_list` and `thumbnails` (single items in
words and pictures, found, ordered and as a report), `activation_map` (where a network looked),
`results` (predictions beside files, and frames).
"""
