"""The language itself: each key with its type."""
