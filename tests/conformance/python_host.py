"""Runs the Python client's driver many times in one process, as lines on standard input say."""

import asyncio
import importlib.util
import json
import sys

spec = importlib.util.spec_from_file_location("driver", sys.argv[1])
driver = importlib.util.module_from_spec(spec)
spec.loader.exec_module(driver)
driver.at_pace(float(sys.argv[2]))


def say(number, **what):
    print(json.dumps({"number": number, **what}), flush=True)


async def drive(number, env):
    await driver.drive(env, lambda line: say(number, line=line))
    say(number, ended=True)


async def main():
    lines = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    running = {}
    while line := await lines.readline():
        order = json.loads(line)
        number = order["number"]
        if "env" in order:
            running[number] = asyncio.create_task(drive(number, order["env"]))
        else:
            running.pop(number).cancel()


asyncio.run(main())
