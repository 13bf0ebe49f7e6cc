"""Images: picture files, which they are and what is in them.

`files` (which files below a folder are pictures), `decoding` (any of them to upright RGB;
`check_images`), `jpeg` (JPEGs, and whether they are whole, by `jpeg_segments` and `seams`), `png`
(check sums), `rgb` (any mode to RGB, orientation), `pixels` (what arrays and tensors may hold),
`duplicates` (files with the same bytes).
"""
