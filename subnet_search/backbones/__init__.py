"""Trained networks: built-in or the user's own, with weights that are read without executing anything."""
