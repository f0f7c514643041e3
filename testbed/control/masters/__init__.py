"""Masters that agree, and whoever is connected to one of them."""
