"""Object stores: addresses, listing, and reading in ranges of which several are in flight."""
