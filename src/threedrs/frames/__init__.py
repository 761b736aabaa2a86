"""Candidate frames of a scan, and the choice of V of them."""
