"""A way to the object store as long as one wishes: counts requests, and holds each back for some milliseconds.

It listens on loopback, prints its port, and answers each line on stdin with the number of requests so far; a line with
a number also sets the delay in milliseconds. ``ranges`` is answered with how many bytes were asked for by ranges since
it was last said, and how many of them more than once.
"""

import asyncio
import re
import sys
import threading

PORT_ARGUMENT = 1
CHUNK = 1 << 18

_RANGE = re.compile(rb"^GET (\S+) .*?\r\nrange: *bytes=(\d+)-(\d+)\r\n", re.IGNORECASE | re.DOTALL)


class Proxy:
    """Forwards to a port of loopback."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.delay = 0.0
        self.requests = 0
        self.ranges: dict[bytes, list[tuple[int, int]]] = {}

    def ranged(self) -> tuple[int, int]:
        """Bytes that ranges asked for since this was last called, and how many of them more than once."""
        asked = twice = 0
        for ranges in self.ranges.values():
            reached = 0
            for first, last in sorted(ranges):
                asked += last + 1 - first
                twice += max(0, min(reached, last + 1) - first)
                reached = max(reached, last + 1)
        self.ranges = {}
        return asked, twice

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection; each of its requests is a head without a body, since only reads come here."""
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        answers = asyncio.create_task(_copy(back, writer))
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                if match := _RANGE.search(head):
                    self.ranges.setdefault(match[1], []).append((int(match[2]), int(match[3])))
                if self.delay:
                    await asyncio.sleep(self.delay)
                forth.write(head)
                await forth.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            forth.close()
            answers.cancel()
            writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def run(target: int) -> None:
    """Forward until stdin ends."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=CHUNK)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201  how the bench learns of it
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def listen() -> None:
        for line in sys.stdin:
            if line.strip() == "ranges":
                print(*proxy.ranged(), flush=True)  # noqa: T201
                continue
            if line.strip():
                proxy.delay = float(line) / 1000
            print(proxy.requests, flush=True)  # noqa: T201
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=listen, daemon=True).start()
    await ended.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[PORT_ARGUMENT])))
