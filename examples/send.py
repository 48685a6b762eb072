"""Sends a message by the Redis function: python3 send.py alice '{"order":7}'"""
import os
import sys

import redis

user, payload = sys.argv[1:]
client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)
try:
    # Options follow the payload: "ttl", 60, "key", "order-7", "id", "o7", "expect", "online"
    sockets, seq, epoch, message = client.fcall("userwire_send", 1, f"userwire:{{{user}}}", payload)
except redis.ResponseError as error:
    sys.exit(f"not sent: {error}")
print(f"sent to {sockets} sockets, number {seq} of {epoch}: {message}")
