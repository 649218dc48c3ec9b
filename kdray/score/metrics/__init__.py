"""One metric a file: a function of its file's name from (answer, reference, source text) to named numbers."""
