"""Real processes in real time: the only code that imports Ray."""
