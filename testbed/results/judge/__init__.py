"""Whether to believe a run, and what to say of it."""
