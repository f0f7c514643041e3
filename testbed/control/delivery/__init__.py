"""How whoever is told configuration is told: when, in which version, and what came back."""
