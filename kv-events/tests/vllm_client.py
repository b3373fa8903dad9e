"""A subscriber of KV events as vLLM's own would be: pyzmq sockets, and msgspec structures with the fields that vLLM declares.

Usage: vllm_client.py array|map, then a command a line on stdin; answers are lines of JSON on stdout.

    subscribe URL TOPIC   connects; answers once a batch without events has come
    listen PORT TOPIC     the same for who calls it; with port 0 on any port, which it answers with first
    batches N             the next N batches with events
    replay URL FIRST      everything from batch FIRST on
"""

import json
import sys
from typing import Any, Optional, Union

import msgspec
import zmq

PATIENCE_MS = 20_000
array_like = sys.argv[1] == "array"
tagged = {"array_like": array_like, "omit_defaults": True, "tag": True}


class BlockStored(msgspec.Struct, **tagged):
    block_hashes: list[Union[bytes, int]]
    parent_block_hash: Optional[Union[bytes, int]]
    token_ids: list[int]
    block_size: int
    lora_id: Optional[int]
    medium: Optional[str]
    lora_name: Optional[str]
    extra_keys: Optional[list[Optional[tuple[Any, ...]]]] = None


class BlockRemoved(msgspec.Struct, **tagged):
    block_hashes: list[Union[bytes, int]]
    medium: Optional[str]


class AllBlocksCleared(msgspec.Struct, **tagged):
    pass


class KVEventBatch(msgspec.Struct, array_like=array_like, omit_defaults=True):
    ts: float
    events: list[Union[BlockStored, BlockRemoved, AllBlocksCleared]]
    data_parallel_rank: Optional[int] = None


decoder = msgspec.msgpack.Decoder(KVEventBatch)
context = zmq.Context()


def socket(kind):
    made = context.socket(kind)
    made.setsockopt(zmq.RCVTIMEO, PATIENCE_MS)
    made.setsockopt(zmq.LINGER, 0)
    return made


def as_json(number, payload):
    batch = decoder.decode(payload)
    fields = lambda event: {name: getattr(event, name) for name in event.__struct_fields__}
    events = [{"kind": type(event).__name__, **fields(event)} for event in batch.events]
    return {"number": int.from_bytes(number, "big"), "ts": batch.ts, "rank": batch.data_parallel_rank, "events": events}


def receive(subscriber, topic):
    frames = subscriber.recv_multipart()
    assert len(frames) == 3 and len(frames[1]) == 8, frames
    assert frames[0].startswith(topic.encode()), frames
    return as_json(frames[1], frames[2])


def replay(url, first):
    dealer = socket(zmq.DEALER)
    dealer.connect(url)
    dealer.send_multipart([b"", first.to_bytes(8, "big")])
    batches = []
    while True:
        empty, number, payload = dealer.recv_multipart()
        assert empty == b"", empty
        if int.from_bytes(number, "big", signed=True) == -1:
            assert payload == b"", payload
            dealer.close()
            return batches
        batches.append(as_json(number, payload))


def answer(value):
    print(json.dumps(value), flush=True)


subscriber, topic = None, ""
for line in sys.stdin:
    command, *words = line.rstrip("\n").split(" ")
    if command in ("subscribe", "listen"):
        if subscriber:
            subscriber.close()
        subscriber, topic = socket(zmq.SUB), words[-1]
        subscriber.setsockopt_string(zmq.SUBSCRIBE, topic)
        if command == "subscribe":
            subscriber.connect(words[0])
        elif words[0] == "0":
            answer(subscriber.bind_to_random_port("tcp://127.0.0.1"))
        else:
            subscriber.bind(f"tcp://127.0.0.1:{words[0]}")
        while receive(subscriber, topic)["events"]:
            pass
        answer("subscribed")
    elif command == "batches":
        batches = []
        while len(batches) < int(words[0]):
            batch = receive(subscriber, topic)
            batches += [batch] if batch["events"] else []
        answer(batches)
    elif command == "replay":
        answer(replay(words[0], int(words[1])))
    else:
        sys.exit(f"unknown command {command}")
