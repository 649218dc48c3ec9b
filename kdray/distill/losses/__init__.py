"""One loss between two distributions a file. Each returns unreduced nats per token, [N], from logits [N, V].

Temperature, masks, means and weights live in the objective alone. One that declares `sparse` can also be had
from a few entries of the teacher's distribution, by its function `sparse`.
"""
