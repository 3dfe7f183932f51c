"""What operators use: HTTP, metrics, the command line."""
