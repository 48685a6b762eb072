"""Receives by server-sent events, with Python's standard library alone, and misses nothing.

    python3 receiver.py 'http://127.0.0.1:8765/v1/events?username=alice'

An address with ?ticket=… needs a ticket that may be used again: {"user": "alice", "ttl": 3600, "reuse": true}.
"""

import http.client
import json
import random
import sys
import time
import urllib.error
import urllib.request

SILENCE_S = 60  # a sign of life comes more often than that: every USERWIRE_PING_S seconds


def events(url):
    """Yields each frame as a dict, over all connections; raises urllib.error.HTTPError when it is refused for good."""
    last_id, retry_s = None, 1.0
    while True:
        headers = {"Accept": "text/event-stream", **({"Last-Event-ID": last_id} if last_id else {})}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_S) as stream:
                data, new_id = [], None
                for line in stream:
                    name, colon, value = line.decode().rstrip("\r\n").partition(":")
                    value = value.removeprefix(" ")
                    if name == "data":
                        data.append(value)
                    elif name == "id":
                        new_id = value
                    elif name == "retry":
                        retry_s = int(value) / 1000
                    elif not name and not colon and data:  # an empty line ends an event
                        yield json.loads("\n".join(data))
                        last_id, data, new_id = new_id or last_id, [], None  # this one is handled
        except urllib.error.HTTPError as error:
            if error.code not in (429, 502, 503, 504):
                raise
            retry_s = float(error.headers.get("Retry-After") or 1)
        except (OSError, http.client.HTTPException):
            pass  # it broke off: the next connection goes on after the last id
        time.sleep(retry_s * random.uniform(0.5, 1.5))


def main(url):
    for frame in events(url):
        if frame["t"] == "m":
            print(frame["seq"], json.dumps(frame["data"]), flush=True)
        elif frame["t"] == "gap":
            print(f"missed messages ({frame['why']})", flush=True)
        elif frame["t"] == "bye" and 4400 <= frame["code"] < 4500:
            sys.exit(f"sent away for good: {frame['why']} ({frame['code']})")


if __name__ == "__main__":
    main(sys.argv[1])
