"""What a node decides for itself: the life of its pods and of their processes."""
