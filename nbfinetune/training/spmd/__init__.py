"""One program, many data: each of several processes runs the same call on a share of each batch."""
