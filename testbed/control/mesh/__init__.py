"""What Istio's control plane makes of the objects that it finds."""
