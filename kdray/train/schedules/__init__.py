"""One learning-rate schedule a file: a factor on lr as a function of the progress in [0, 1] after warm-up."""
