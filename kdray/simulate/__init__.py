"""A run in simulated time, before anything is started: the decisions of a run, with actors and points that only let
time pass. docs/simulate.md says what is taken for granted.
"""
