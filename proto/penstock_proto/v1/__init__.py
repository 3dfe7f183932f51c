"""Version 1 of what client and server say to each other: generated messages and I/O-free modules both ends need."""

PROTOCOL = 1
"""The protocol number a client states in Open. A server refuses others, naming both."""
