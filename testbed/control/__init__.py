"""Everything that decides: pure functions and state machines that take `now` and return values. No I/O, no clock."""
