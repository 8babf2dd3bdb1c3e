"""The errors of a connection: what they mean, and whether they are temporary.

Rules of this file:
    * A temporary error is a `ConnectionLostError`, a permanent one a `ServerUnusableError`. A
      malformed reply is a `ProtocolError`.
    * A message has the server's own text, shortened, its meaning, and what to do.
    * The cause is in ``__cause__``.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

import redis
from redis import exceptions

from .._runtime.foreign import in_words, text_of
from ..errors import MultielectError, ServerError
from .endpoint import Endpoint
from .tls import certificate_fault

_MAX_TEXT = 200
_RESP_TYPES = b"+-:$*_#,(!=%~>|"
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
_OF_HTTP = (b"http/", b"<!doc", b"<html")
_SPEAKS_TLS = "it uses TLS, and this node does not"
_SPEAKS_NO_TLS = "it does not use TLS"
_USE_TLS = "Use rediss:// in place of redis://, or its port without TLS"
_USE_NO_TLS = "Use redis:// in place of rediss://, or its port with TLS"

# redis-py removes these codes from the text, and raises these classes.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.NoPermissionError, "NOPERM"),
    (exceptions.BusyLoadingError, "LOADING"),
    (exceptions.ReadOnlyError, "READONLY"),
    (exceptions.MasterDownError, "MASTERDOWN"),
    (exceptions.MovedError, "MOVED"),
    (exceptions.AskError, "ASK"),
    (exceptions.TryAgainError, "TRYAGAIN"),
    (exceptions.ClusterDownError, "CLUSTERDOWN"),
    (exceptions.ClusterCrossSlotError, "CROSSSLOT"),
    (exceptions.OutOfMemoryError, "OOM"),
)


@dataclass(frozen=True)
class _Meaning:
    """The meaning of refusals with one of these codes or phrases.

    Attributes:
        codes: the first words of such refusals.
        phrases: phrases in such refusals.
        reason: the reason of the `ServerUnusableError`; empty for a temporary error.
        what: the message, which may have ``{user}``, ``{asked}`` and ``{said}``.
        advice: what to do.
    """

    codes: frozenset[str]
    phrases: tuple[str, ...]
    reason: str
    what: str
    advice: str


_CLUSTER = _Meaning(
    frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "CROSSSLOT"}),
    ("not allowed in cluster mode",),
    "cluster",
    "it answers as a node of Redis Cluster, and does not say that it is one: {said}",
    "Name the nodes of the cluster: redis+cluster://HOST:PORT,HOST:PORT",
)

_REPLICA = _Meaning(
    frozenset({"READONLY", "MASTERDOWN"}),
    (),
    "replica",
    "it is not a primary and does not serve elections: {said}",
    "Give the address of the primary",
)

_MEANINGS = (
    _Meaning(
        frozenset({"NOAUTH"}),
        ("HELLO must be called", "Authentication required"),
        "auth",
        "it requires a password, and this node has none: {said}",
        "Pass one: redis://:PASSWORD@HOST, or redis://USER:PASSWORD@HOST",
    ),
    _Meaning(
        frozenset({"NOPERM"}),
        (),
        "acl",
        "its user {user!r} may not run {asked}: {said}",
        "Grant the right with ACL SETUSER, or log in as another user",
    ),
    _REPLICA,
    _CLUSTER,
    _Meaning(
        frozenset({"DENIED"}),
        (),
        "protected",
        "it refuses other machines: {said}",
        "Set a password there, or connect from the same machine",
    ),
    _Meaning(
        frozenset(),
        ("DB index",),
        "database",
        "it has no database of this number: {said}",
        "Use a number below its setting `databases`, 16 by default: redis://HOST:PORT/0",
    ),
    _Meaning(
        frozenset(),
        ("unknown command", "scripting engine"),
        "unsupported",
        "it lacks {asked}: {said}",
        "Use a server of Redis 6.2 or newer, or Valkey, with Lua scripts",
    ),
    _Meaning(
        frozenset({"LOADING"}),
        (),
        "",
        "it is still loading its data: {said}",
        "The node tries again",
    ),
    _Meaning(
        frozenset(),
        ("max number of clients",),
        "",
        "it has as many clients as it allows: {said}",
        "Raise its maxclients, or close connections. The node tries again",
    ),
)
_OTHER = _Meaning(frozenset(), (), "", "it refused {asked}: {said}", "The node tries again")


def server_text(error: BaseException) -> str:
    """Return the server's own text of an error, as far as redis-py has kept it."""
    text = str(error)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return text if text.startswith(code) else f"{code} {text}"
    return text


def refusal(
    endpoint: Endpoint, text: str, asked: str = "a command of the handshake"
) -> MultielectError:
    """Return the error for a refusal of the server.

    Args:
        endpoint: the node that asked, and the server.
        text: the server's text.
        asked: the command that was refused, if that is known.
    """
    code = text.partition(" ")[0]
    found = [
        meaning
        for meaning in _MEANINGS
        if code in meaning.codes or any(phrase in text for phrase in meaning.phrases)
    ]
    meaning = found[0] if found else _OTHER
    # The first sentence is enough. A page of advice may follow it.
    said = text.partition(". ")[0][:_MAX_TEXT].rstrip(".")
    if endpoint.is_in_cluster and meaning in (_CLUSTER, _REPLICA):
        return endpoint.elsewhere(f"the cluster does not serve {asked} there at the moment: {said}")
    what = meaning.what.format(user=endpoint.user, asked=asked, said=said)
    if meaning.reason:
        return endpoint.unusable(meaning.reason, what, meaning.advice)
    return endpoint.unreachable(what, meaning.advice)


def refused_right(endpoint: Endpoint, error: ServerError) -> MultielectError:
    """Return the error for a batch that was refused for a missing right."""
    batch, _, text = str(error).partition(f": {error.code} ")
    # The error that is returned names the server itself.
    batch = batch.removesuffix(f" at {error.server}")
    meaning = refusal(endpoint, f"{error.code} {text}", f"the script for {batch}")
    meaning.__cause__ = error
    return meaning


def explained(
    cause: BaseException, endpoint: Endpoint, heard: bytes, timeout_s: float
) -> MultielectError:
    """Return the error for an attempt to connect that failed.

    Args:
        cause: the exception.
        endpoint: the node that connects, and the server.
        heard: the first bytes of the server.
        timeout_s: how long the node waited for each answer.
    """
    if isinstance(cause, MultielectError):
        return cause
    error = _of_first_bytes(endpoint, heard) or _of_the_network(endpoint, cause)
    if error is None:
        if isinstance(cause, (exceptions.TimeoutError, TimeoutError)):
            error = endpoint.unreachable(f"it did not answer within {timeout_s:.3g} s")
        else:
            error = _of_last_words(endpoint, cause, heard) or _of_the_server(endpoint, cause)
    error.__cause__ = cause
    return error


def _of_first_bytes(endpoint: Endpoint, heard: bytes) -> MultielectError | None:
    if heard[:2] in _TLS_RECORDS:
        return speaks_tls_error(endpoint)
    if not heard or heard[0] in _RESP_TYPES:
        return None
    first = heard.lstrip().split(b"\n", 1)[0][:80] or heard[:80]
    is_http = heard.lstrip()[:5].lower() in _OF_HTTP
    what = "it is an HTTP server" if is_http else "it does not speak the Redis protocol"
    return endpoint.unusable(
        "protocol", f"{what}: it answered {first!r}", "Is the port that of Redis?"
    )


def _of_last_words(
    endpoint: Endpoint, cause: BaseException, heard: bytes
) -> MultielectError | None:
    """Return the error for a server that sent a refusal and closed the connection at once."""
    text, _, rest = heard.partition(b"\r\n")
    if rest or not text.startswith(b"-") or isinstance(cause, exceptions.AuthenticationError):
        return None
    if not isinstance(cause, (exceptions.ConnectionError, OSError)):
        return None
    return refusal(endpoint, text[1:].decode(errors="replace"))


def _of_the_network(endpoint: Endpoint, cause: BaseException) -> MultielectError | None:
    for error in _chain(cause):
        if isinstance(error, ssl.SSLError):
            return _of_tls(endpoint, error)
        if isinstance(error, socket.gaierror):
            return endpoint.unreachable(
                f"its name cannot be resolved: {error.strerror}",
                "Check its spelling, and the name server. The node tries again",
            )
        if isinstance(error, PermissionError):
            return endpoint.unusable(
                "permission",
                f"this process may not open it: {error.strerror}",
                "Give its user the right to connect there",
            )
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return endpoint.unreachable(
                f"no server listens there: {error.strerror}",
                "Check the server and the address. The node tries again",
            )
    return None


def _of_the_server(endpoint: Endpoint, cause: BaseException) -> MultielectError:
    if isinstance(cause, exceptions.AuthenticationError):
        return _of_login(endpoint, str(cause))
    is_refusal = isinstance(cause, (exceptions.ResponseError, exceptions.BusyLoadingError))
    if is_refusal or "max number of clients" in text_of(cause):
        return refusal(endpoint, server_text(cause))
    if isinstance(cause, exceptions.InvalidResponse) or not isinstance(
        cause, (redis.RedisError, OSError)
    ):
        # The requests are ordinary ones, so redis-py fails only on a malformed reply.
        return endpoint.malformed(in_words(cause)[:_MAX_TEXT])
    return endpoint.unreachable(_plain(cause))


def speaks_tls_error(endpoint: Endpoint) -> MultielectError:
    """Return the error for a server that uses TLS, when this node does not."""
    return endpoint.unusable("tls", _SPEAKS_TLS, _USE_TLS)


def speaks_no_tls_error(endpoint: Endpoint) -> MultielectError:
    """Return the error for a server that does not use TLS, when this node does."""
    return endpoint.unusable("tls", _SPEAKS_NO_TLS, _USE_NO_TLS)


def _of_login(endpoint: Endpoint, text: str) -> MultielectError:
    if not endpoint.has_password:
        return refusal(endpoint, f"NOAUTH {text}")
    if "without any password" in text:
        return endpoint.unusable(
            "auth", f"it has no password, and this node sent one: {text}", "Leave the password out"
        )
    return endpoint.unusable(
        "auth",
        f"it does not accept the password of user {endpoint.user!r}: {text[:_MAX_TEXT]}",
        "Check the password, and that the user exists and is enabled",
    )


def _of_tls(endpoint: Endpoint, error: ssl.SSLError) -> MultielectError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return endpoint.unusable("tls", *certificate_fault(error))
    # The reason is missing if OpenSSL gave none.
    reason = str(getattr(error, "reason", None) or "")
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        return speaks_no_tls_error(endpoint)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or not reason:
        return endpoint.unreachable(f"it closed the connection during TLS: {_plain(error)}")
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return endpoint.unusable(
            "tls",
            f"it refused the handshake: {_plain(error)}",
            "It may require a client certificate: ssl_certfile=FILE and ssl_keyfile=FILE",
        )
    return endpoint.unusable(
        "tls",
        f"the two ends do not agree on TLS: {_plain(error)}",
        "Compare the versions, ciphers and certificates that each allows",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes, at most five."""
    for _ in range(5):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _plain(error: BaseException) -> str:
    found = [each for each in _chain(error) if isinstance(each, OSError) and each.strerror]
    text = str(found[0].strerror) if found else text_of(error)
    return text[:_MAX_TEXT].rstrip(".")
