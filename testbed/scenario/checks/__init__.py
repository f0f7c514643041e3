"""What several values of a scenario must have between them, and what must be there around it."""
