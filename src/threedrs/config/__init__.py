"""The configuration: its schema, what in it cannot work, and what jobs ask of a machine."""
