"""What goes through the network at once: pictures in parts, or features that were kept.

`microbatches` save memory; `feature_cache` keeps what a frozen body gives, and `feature_batches`
make batches of that. `streams` are the random numbers that they are drawn by.
"""
