"""The user's files: which a run needs, which scans have them, and which can be downloaded."""
