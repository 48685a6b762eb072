"""The client of the Python version, on the Python client of Userwire: prints what a user is sent, and misses nothing.

    python3 receiver.py ws://127.0.0.1:8765 alice

The old one sent a frame {"user_name": …} and a "ping" every few seconds, and lost whatever came while it was away.
"""

import asyncio
import json
import logging
import os
import sys

# Beside your own program userwire.py needs no path.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../clients/python"))
import userwire  # noqa: E402


def missed(gap):
    print(f"missed {gap.count if gap.count is not None else 'nobody knows how many'} messages", flush=True)


async def main(url, user):
    logging.basicConfig(level=logging.INFO)
    async with userwire.connect(url, user=user, on_gap=missed) as messages:
        async for message in messages:
            print(message.seq, json.dumps(message.data), flush=True)
    # The loop ends when the server says that coming back is no use; userwire.Closed says why.


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
