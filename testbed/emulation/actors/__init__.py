"""What lives in Ray actors, behind one seam to Ray."""
