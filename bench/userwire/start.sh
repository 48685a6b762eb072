#!/bin/sh
# One instance for a yardstick from outside, in the foreground: PORT, REDIS_URL and the scratch folder WORK come
# from the environment, USERWIRE_* from the row's peer.json. The flags are those of "deno task start".
cd "$(dirname "$0")/../.." || exit 1
export LOG_DIR="$WORK/logs" DENO_NO_UPDATE_CHECK=1
exec deno run --no-prompt --deny-import --allow-net --allow-env --allow-sys=hostname --allow-read --allow-write main.ts
