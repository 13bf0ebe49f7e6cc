"""The screen that predicts pictures of the user's."""
