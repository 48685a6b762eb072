"""The backend of the Python version, on the Python client of Userwire: sends an event to a user, whether they are there
or not.

    python3 sender.py http://127.0.0.1:8765 alice order "Your order has shipped"

The old one asked Redis with PUBSUB NUMSUB whether anybody was there, and then called PUBLISH; in between the user could
go. Here the answer says what became of the message. USERWIRE_KEY is the key, where the service asks for one.
"""

import os
import sys

# Beside your own program userwire.py needs no path.
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../../clients/python"))
import userwire  # noqa: E402


def main(url, user, event_type, text):
    sender = userwire.Sender(url, key=os.environ.get("USERWIRE_KEY"))
    sent = sender.send(user, {"event_type": event_type, "message": text})
    reached = sent.sockets if sent.sockets is not None else sent.nodes
    print(f"sent to {reached} sockets" if reached else f"{user} is offline: it is kept for them")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:5])
    except userwire.Error as error:
        sys.exit(str(error))
