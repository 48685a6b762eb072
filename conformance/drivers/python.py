"""The Python client as a program for the conformance kit:

deno task conform -- /usr/bin/python3 conformance/drivers/python.py
"""

import asyncio
import base64
import json
import os
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../clients/python"))
import userwire  # noqa: E402


def at_pace(pace):
    """Multiplies the client's times, which no application has reason to do."""
    for name in ("_BASE_S", "_LONGEST_S", "_STEADY_S", "_PATIENCE_S"):
        setattr(userwire, name, getattr(userwire, name) * pace)


async def drive(env, write):
    """Connects as the environment says, and writes what comes, until the client has ended for good."""

    def token():
        with urllib.request.urlopen(env["USERWIRE_TOKEN_URL"]) as response:
            return response.read().decode()

    def payload(data):
        return {"base64": base64.b64encode(data).decode()} if isinstance(data, bytes) else {"data": data}

    def told(name):
        return lambda gap: write({name: gap.why, "from": gap.first, "to": gap.last, "count": gap.count})

    async def ask(messages, i, op, data=None):
        try:
            write({"answer": i, "data": await messages.request(op, data)})
        except userwire.RequestError as error:
            write({"refused": i, "code": error.code, "outcome": error.outcome})

    identity = {"token": token} if "USERWIRE_TOKEN_URL" in env else {"user": env["USERWIRE_USER"]}
    try:
        options = {
            "on_gap": told("gap"),
            "on_broadcast": lambda message: write({"broadcast": message.seq, **payload(message.data)}),
            "on_broadcast_gap": told("bgap"),
        }
        async with userwire.connect(env["USERWIRE_URL"], **options, **identity) as messages:
            requests = json.loads(env.get("USERWIRE_REQUESTS", "[]"))
            asking = [asyncio.create_task(ask(messages, i, **one)) for i, one in enumerate(requests)]
            async for message in messages:
                write({"seq": message.seq, **payload(message.data)})
            await asyncio.gather(*asking)
    except userwire.Error as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    at_pace(float(os.environ.get("USERWIRE_PACE", "1")))
    asyncio.run(drive(os.environ, lambda line: print(json.dumps(line), flush=True)))
