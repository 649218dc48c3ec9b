"""SelfCite (Chuang et al. 2025, arXiv 2502.09604): citations of a document's sentences, and how much an answer rests on
them by the answering model's own probabilities. From the paper alone.
"""
