"""Partition maps: what a key is, who owns it, and how that changes. Pure functions of the map."""
