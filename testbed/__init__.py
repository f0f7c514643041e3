"""Ray-based emulation testbed for multi-zone, cell-based service platforms."""
