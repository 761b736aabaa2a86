"""Low-rank adapters: their layers, and their files."""
