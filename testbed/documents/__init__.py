"""Files that people write: YAML with positions, overrides, and problems told with their place."""
