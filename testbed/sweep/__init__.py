"""Variants of a scenario times seeds, a run each: what is to be run, in which order, and what of it is there.

Owns the plan, the folder of a sweep and the start of its runs. What a run does is `emulation`, what runs say beside
each other `results.compare`.
"""
