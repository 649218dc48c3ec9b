"""Scores: tasks that a model is asked, and metrics over what it answers."""
