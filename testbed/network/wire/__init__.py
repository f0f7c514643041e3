"""What moves bytes, late as the links say: sockets, threads and timers."""
