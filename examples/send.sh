#!/bin/sh
# Sends a message by the Redis function: send.sh alice '{"order":7}'
set -eu
# -e: an error reply ends it with 1.
exec redis-cli -e -u "${REDIS_URL:-redis://127.0.0.1:6379}" --no-raw FCALL userwire_send 1 "userwire:{$1}" "$2"
