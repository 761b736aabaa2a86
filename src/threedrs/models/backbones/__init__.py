"""The backbone families, one file each, and the table that chooses between them."""
