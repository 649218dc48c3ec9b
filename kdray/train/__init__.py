"""Training: the loop, its optimiser and schedule, and the checkpoints that it resumes from. No Ray in here."""
