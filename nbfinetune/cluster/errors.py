"""Errors: what fails with a cluster, each in one clear line."""


class ClusterError(RuntimeError):
    """What failed with a cluster, and what to type."""


class EngineLost(RuntimeError):
    """An engine is gone; `rank` says which."""

    def __init__(self, rank: int, what: str) -> None:
        super().__init__(f"worker {rank} {what}")
        self.rank = rank
