"""Instruction data: sources, recipes, templates, and the tokenised rows that training reads."""
