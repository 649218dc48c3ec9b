"""Blind ratings by people: answers of two arms in random order on a page that saves a csv, and what such files say.

sheet    which answers are rated, in which order, and the key that says whose they are
page     the page on which a person rates them
ratings  files read back: agreement between raters, and the paired difference of the arms
"""
