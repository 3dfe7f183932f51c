"""Text formats: rows are found in bytes by array arithmetic, then parsed by Arrow."""
