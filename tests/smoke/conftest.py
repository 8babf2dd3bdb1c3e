"""fakeredis behind a TCP port, made to answer as a server of version 6 would.

Rules of this file:
    * Only the manners of its TCP server are mended: it hangs up after any error reply, and
      sends what is published as replies under RESP3. What the scripts do is fakeredis' own
      doing.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fakeredis import TcpFakeServer
from redis.exceptions import ResponseError

NO_RESP3 = ResponseError("NOPROTO unsupported protocol version")


def mended(server: TcpFakeServer) -> type:
    """Return the server's handler of connections, with better manners."""
    rude: Any = server.RequestHandlerClass

    class Handler(rude):  # type: ignore[misc]
        def setup(self) -> None:
            super().setup()
            read = self.current_client.read_response

            def read_response(*arguments: Any, **named: Any) -> Any:
                try:
                    response = read(*arguments, **named)
                except ResponseError as error:
                    return error
                is_hello = isinstance(response, dict) and "proto" in response
                return NO_RESP3 if is_hello else response

            self.current_client.read_response = read_response

    return Handler


@pytest.fixture
def fake_url() -> Iterator[str]:
    """The address of a fake server that holds nothing."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = mended(server)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
