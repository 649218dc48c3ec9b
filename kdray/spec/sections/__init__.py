"""The sections of a grid file, by subject. Every field says what it means and, by its mark, whether ids know it."""
