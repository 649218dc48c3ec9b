"""One form of soft labels a file: how a teacher's outputs are kept on disk and read back as logits."""
