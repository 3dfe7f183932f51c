"""Bytes on disk become datasets: discovery, formats, manifest, registry."""
