"""Read units become processed chunks, once: workers, their bound, and the store."""
