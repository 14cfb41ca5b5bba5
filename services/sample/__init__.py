"""A small synthetic Earth, written in the file formats that users arrive with."""
