"""One task a file: what it declares is said at `AnswerTask`, `ChoiceTask` and `HeldoutTask` in `kdray.spec.declare`."""
