"""What a grid costs before it is run: work, time, memory and disk, by arithmetic alone. docs/cost.md has the
formulas.
"""
