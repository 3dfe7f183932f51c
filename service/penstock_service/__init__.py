"""The Penstock server. No re-exports: import from the module that owns the thing."""
