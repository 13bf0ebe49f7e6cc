"""Travel: learners, calls and results as bytes, between a notebook and its engines."""
