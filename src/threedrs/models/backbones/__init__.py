"""The backbone families, one file each, and the register of their names."""
