"""Runs beside each other: what differs between variants of a scenario, and what of that is more than chance."""
