"""Addresses and paths: every byte between two nodes crosses a link relay that behaves like the declared link."""
