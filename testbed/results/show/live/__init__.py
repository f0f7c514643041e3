"""The page of a run that goes on: the pictures of `show.html`, of what has been recorded so far."""
