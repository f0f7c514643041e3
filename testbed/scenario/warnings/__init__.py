"""What can be run, but would not show what is wanted."""
