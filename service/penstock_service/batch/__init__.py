"""Segments become steps of ranks, and index rows become bytes."""
