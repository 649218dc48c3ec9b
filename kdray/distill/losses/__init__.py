"""One loss a file. Each returns unreduced nats per token, [N]: masks, means and weights live in the objective."""
