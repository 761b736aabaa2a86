"""Is this machine ready for a run, and are the results of earlier runs whole?"""
