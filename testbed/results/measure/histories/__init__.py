"""What clients of a store did and were told, checked against what a store may do: each key is a register."""
