"""The parts of the training screen: its buttons, its curves and how these are shown."""
