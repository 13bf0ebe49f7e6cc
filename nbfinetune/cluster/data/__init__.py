"""Data of a cluster: given by the notebook, once to a host, and kept in its engines."""
