"""Matrix options: how the cells of a confusion matrix are normalised and its classes ordered."""

NORMALIZE = ("none", "true", "pred", "all")
ORDERS = ("vocab", "error", "cluster", "freq")
