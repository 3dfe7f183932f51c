"""The mixing pool: schedule, delays, segments as indices."""
