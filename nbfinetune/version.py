"""The version, for the header of saved files too."""

__version__ = "0.1.0"
