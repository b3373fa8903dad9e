"""A NIXL agent that is not ours, for the tests of the nixl fabric: the Python package's own, over UCX.

Orders are JSON values on standard input, one a line; answers are lines that begin with `@`, as others print here too.
Between orders it makes progress, so that transports which need the target's help get it.
"""

import ctypes
import json
import select
import sys

try:
    from nixl_cu13 import nixl_agent, nixl_agent_config
except ImportError:
    from nixl_cu12 import nixl_agent, nixl_agent_config

NAME, BYTES = "python-agent", 1 << 20

agent = nixl_agent(NAME, nixl_agent_config(enable_prog_thread=False, backends=["UCX"]))
memory = ctypes.create_string_buffer(bytes(i * 7 % 251 for i in range(BYTES)), BYTES)
base = ctypes.addressof(memory)
registered = agent.register_memory([(base, BYTES, 0, "")], mem_type="DRAM")
heard = []


def answer(**values):
    print("@" + json.dumps(values), flush=True)


def listen():
    for sender, messages in agent.get_new_notifs().items():
        heard.extend((sender, message.hex()) for message in messages)


def write(order):
    """Ranges of our memory to addresses of the peer's, as one request with a notification."""
    peer = agent.add_remote_agent(bytes.fromhex(order["metadata"]))
    ours = [(base + at, length, 0) for at, _, length in order["ranges"]]
    theirs = [(to, length, 0) for _, to, length in order["ranges"]]
    handle = agent.initialize_xfer(
        "WRITE",
        agent.get_xfer_descs(ours, mem_type="DRAM"),
        agent.get_xfer_descs(theirs, mem_type="DRAM"),
        peer.decode() if isinstance(peer, bytes) else peer,
        bytes.fromhex(order["notification"]),
    )
    state = agent.transfer(handle)
    while state == "PROC":
        state = agent.check_xfer_state(handle)
    agent.release_xfer_handle(handle)
    answer(state=state)


answer(name=NAME, metadata=agent.get_agent_metadata().hex(), base=base, bytes=BYTES)
while True:
    listen()
    if not select.select([sys.stdin], [], [], 0.001)[0]:
        continue
    line = sys.stdin.readline()
    if not line:
        break
    order = json.loads(line)
    if order["do"] == "write":
        write(order)
    elif order["do"] == "heard":
        answer(heard=heard)
    elif order["do"] == "peek":
        answer(bytes=memory.raw[order["at"] : order["at"] + order["len"]].hex())
