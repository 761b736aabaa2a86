"""ScanNet's file formats and the geometry of a scan: readers, writers, conversions."""
