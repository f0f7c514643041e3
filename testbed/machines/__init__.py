"""Real machines: made out of nothing for tests, and tried before Ray gets them."""
