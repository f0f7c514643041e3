"""Figures for people and programs."""
