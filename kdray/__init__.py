"""kdray: does distilling a language model from a teacher make it hallucinate less, and at which weight?"""

__version__ = "0.1.0"
