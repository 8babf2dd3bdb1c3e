"""What an attempt to connect failed of, in words."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
import redis
from redis import exceptions

from multielect import ConnectionLostError, MultielectError, ProtocolError, ServerUnusableError
from multielect._connection.endpoint import Endpoint, address_text
from multielect._connection.errors import explained
from multielect._connection.handshake import HandshakeSocket

HERE = Endpoint("orders", "web-1", "db:6379", has_password=True)


def raised(error: Exception, cause: Exception | None = None) -> Exception:
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "reason", "words"),
    [
        (
            raised(
                redis.ConnectionError("Error 13 connecting to db:6379. Permission denied."),
                PermissionError(errno.EACCES, "Permission denied"),
            ),
            "permission",
            "this process may not open it: Permission denied",
        ),
        (exceptions.MasterDownError("Link with MASTER is down"), "replica", "MASTERDOWN Link"),
        (exceptions.MovedError("7155 10.0.0.1:7000"), "cluster", "MOVED 7155 10.0.0.1:7000"),
        (exceptions.ResponseError("SELECT is not allowed in cluster mode"), "cluster", "SELECT"),
        (exceptions.ResponseError("invalid DB index"), "database", "no database of this number"),
        (
            exceptions.AuthenticationError("AUTH called without any password configured"),
            "auth",
            "it has no password, and this node sent one",
        ),
    ],
)
def test_what_does_not_pass(cause: Exception, reason: str, words: str) -> None:
    error = explained(cause, HERE, b"", 1.0)
    assert isinstance(error, ServerUnusableError)
    assert error.reason == reason
    assert words in str(error)
    assert str(error).startswith("orders/web-1 cannot use the server at db:6379: ")
    assert error.__cause__ is cause


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (redis.TimeoutError("Timeout connecting to server"), "it did not answer within 1 s"),
        (
            redis.ConnectionError("Connection closed by server."),
            "closed by server. The node",
        ),
        (exceptions.BusyLoadingError("Redis is loading"), "still loading its data: LOADING Redis"),
        (exceptions.ResponseError("OOM command not allowed"), "OOM command not allowed"),
        (
            raised(redis.ConnectionError("Error 8"), ssl.SSLEOFError(8, "EOF occurred")),
            "it closed the connection during TLS: EOF occurred",
        ),
    ],
)
def test_what_passes(cause: Exception, words: str) -> None:
    error = explained(cause, HERE, b"", 1.0)
    assert isinstance(error, ConnectionLostError)
    assert words in str(error)
    assert str(error).startswith("orders/web-1 cannot connect to db:6379: ")


def test_what_a_server_says_before_it_hangs_up_is_heard() -> None:
    near, far = socket.socketpair()
    with near, far:
        handshake = HandshakeSocket(near, 1.0)
        far.sendall(b"-DENIED Redis is running in protected mode. In this mode\r\n")
        far.close()
        with pytest.raises(BrokenPipeError) as broken:
            handshake.sendall(b"*1\r\n$5\r\nHELLO\r\n")
    error = explained(
        raised(redis.ConnectionError("Error 32"), broken.value), HERE, handshake.heard, 1.0
    )
    assert isinstance(error, ServerUnusableError)
    assert error.reason == "protected"


def test_what_is_no_answer() -> None:
    error = explained(AttributeError("'int' object has no attribute 'get'"), HERE, b":1\r\n", 1.0)
    assert type(error) is ProtocolError
    assert "orders/web-1: the server at db:6379 sent a malformed reply" in str(error)


def test_what_is_ours_stays_as_it_is() -> None:
    ours = MultielectError("any")
    assert explained(ours, HERE, b"", 1.0) is ours
    assert ours.__cause__ is None


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "localhost:6379"),
        ({"host": "db", "port": 1, "password": "s3cret"}, "db:1"),
        ({"host": "::1"}, "[::1]:6379"),
        ({"path": "/run/redis.sock", "password": "s3cret"}, "/run/redis.sock"),
    ],
)
def test_an_address_in_words(settings: dict[str, object], text: str) -> None:
    assert address_text(settings) == text
