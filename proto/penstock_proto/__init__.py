"""The wire between Penstock's server and its clients."""
