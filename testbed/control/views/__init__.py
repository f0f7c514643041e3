"""What each kind of subscriber is told: pure functions of the store."""
