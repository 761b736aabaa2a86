"""3DRS as one reproducible workflow: ScanNet scans in, five benchmark scores out."""

__version__ = "0.1.0"
