#!/bin/sh
# One node for a yardstick from outside, in the foreground: PORT, REDIS_URL and the scratch folder WORK come
# from the environment, USERWIRE_* from the row's peer.json. The flags are those of "deno task start".
cd "$(dirname "$0")/../.." || exit 1
# The load comes from one address, and some of it for one user: the limits of both would refuse it.
export USERWIRE_MAX_CONNECTIONS_PER_USER=0 USERWIRE_MAX_CONNECTIONS_PER_ADDRESS=0 USERWIRE_UPGRADES_PER_SECOND=0
export LOG_DIR="$WORK/logs" DENO_NO_UPDATE_CHECK=1
exec deno run --no-prompt --deny-import --allow-net --allow-env --allow-sys=hostname --allow-read --allow-write --v8-flags=--max-semi-space-size=16 main.ts
