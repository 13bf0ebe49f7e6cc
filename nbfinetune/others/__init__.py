"""Others: what learners and loaders of other libraries are made of, as the parts of one of ours."""
