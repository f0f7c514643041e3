"""Failures as small frozen values: each names its victims and turns into actions on the world, and back."""
