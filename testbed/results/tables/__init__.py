"""What a run leaves in its folder, and what turns raw records into it."""
