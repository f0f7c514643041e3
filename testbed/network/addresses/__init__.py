"""Who has which address on one machine or on several."""
