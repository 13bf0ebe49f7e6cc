"""A process that does what it is sent: `python server.py PORT KEY`."""

import pickle
import sys
import traceback
from multiprocessing.connection import Client

import torch

from nbfinetune.training.spmd.world import World


def _done(asked: bytes) -> bytes:
    try:
        function, rank, size, port, arguments = pickle.loads(asked)
        world = World.join(rank, size, ("127.0.0.1", port), timeout=60)
        try:
            return pickle.dumps((True, function(world, *arguments)))
        finally:
            world.leave()
    except BaseException:
        return pickle.dumps((False, traceback.format_exc()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    pipe = Client(("127.0.0.1", int(sys.argv[1])), authkey=bytes.fromhex(sys.argv[2]))
    while asked := pipe.recv_bytes():
        pipe.send_bytes(_done(asked))
