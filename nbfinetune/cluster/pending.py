"""Pending: the result of a call to an engine that is under way."""

import pickle

from nbfinetune.cluster.errors import ClusterError, EngineLost


class Pending:
    """The result of a call that is under way."""

    def __init__(self, result: object, rank: int, where: str) -> None:
        self._result, self._rank, self._where = result, rank, where

    def ready(self) -> bool:
        """Whether there is a result, an exception, or no engine any more."""
        return self._result.ready()

    def get(self, timeout: float | None = None) -> object:
        """The result, after `timeout` s at most; an exception of the function is raised here too.

        Raises
        ------
        TimeoutError
            If there is no result in time.
        EngineLost
            If the engine died.
        """
        try:
            answer = self._result.get(timeout)
        except Exception as error:
            if not (kind := getattr(error, "ename", None)):
                raise  # no answer in time
            if kind == "EngineError":
                raise EngineLost(self._rank, f"{self._where} died") from None
            raise ClusterError(f"worker {self._rank} {self._where}: {error}") from None
        done, value = pickle.loads(answer) if isinstance(answer, bytes) else (True, answer)
        if done:
            return value
        raise value
