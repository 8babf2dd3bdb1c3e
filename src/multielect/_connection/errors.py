"""What went wrong with a connection, in plain words, and whether it passes by itself.

Rules of this file:
    * What passes by itself is a `ConnectionLostError`, what does not a `ServerUnusableError`; an
      answer that is none is a `ProtocolError`.
    * The server's own words are kept, shortened, beside what they mean and what to do about it.
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

_MAX_WORDS = 200
_RESP_TYPES = b"+-:$*_#,(!=%~>|"
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
_OF_HTTP = (b"http/", b"<!doc", b"<html")
_SPEAKS_TLS = "it speaks TLS, and was spoken to without"
_SPEAKS_NO_TLS = "it speaks no TLS"
_USE_TLS = "Use rediss:// in place of redis://, or its port without TLS"
_USE_NO_TLS = "Use redis:// in place of rediss://, or its port with TLS"

# redis-py takes the code from the text and makes a class of it.
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
    """What the refusals with these codes, or with these phrases, mean.

    Attributes:
        codes: the first words of such refusals.
        phrases: what else they are known by.
        reason: that of the `ServerUnusableError`; empty where it passes by itself.
        what: what is told; may hold ``{user}``, ``{asked}`` and ``{said}``.
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
    "it is a node of Redis Cluster, which is not supported yet: {said}",
    "Use a server of its own for elections",
)

_MEANINGS = (
    _Meaning(
        frozenset({"NOAUTH"}),
        ("HELLO must be called", "Authentication required"),
        "auth",
        "it wants a password, and none was given: {said}",
        "Give one: redis://:PASSWORD@HOST, or redis://USER:PASSWORD@HOST",
    ),
    _Meaning(
        frozenset({"NOPERM"}),
        (),
        "acl",
        "its user {user!r} may not do {asked}: {said}",
        "Grant it by ACL SETUSER, or log in as another user",
    ),
    _Meaning(
        frozenset({"READONLY", "MASTERDOWN"}),
        (),
        "replica",
        "it is not a primary and does not serve elections: {said}",
        "Give the address of the primary",
    ),
    _CLUSTER,
    _Meaning(
        frozenset({"DENIED"}),
        (),
        "protected",
        "it keeps other machines out: {said}",
        "Set a password there, or connect from the same machine",
    ),
    _Meaning(
        frozenset(),
        ("DB index",),
        "database",
        "it has no database of this number: {said}",
        "Give one below its setting `databases`, 16 by default: redis://HOST:PORT/0",
    ),
    _Meaning(
        frozenset(),
        ("unknown command", "scripting engine"),
        "unsupported",
        "it lacks {asked}: {said}",
        "Use a server of Redis 6.2 or newer, or Valkey, with Lua scripts",
    ),
    _Meaning(
        frozenset({"LOADING"}), (), "", "it is still loading its data: {said}", "It is tried again"
    ),
    _Meaning(
        frozenset(),
        ("max number of clients",),
        "",
        "it has as many clients as it allows: {said}",
        "Raise its maxclients, or close connections. It is tried again",
    ),
)
_OTHER = _Meaning(frozenset(), (), "", "it refused {asked}: {said}", "It is tried again")


def words_of(error: BaseException) -> str:
    """Return an error of the server in its own words, as far as redis-py has kept them."""
    text = str(error)
    for kind, code in _CODES:
        if isinstance(error, kind):
            return text if text.startswith(code) else f"{code} {text}"
    return text


def refusal(
    endpoint: Endpoint, words: str, asked: str = "what connecting takes"
) -> MultielectError:
    """Return what it means that a server refused something in these words.

    Args:
        endpoint: who asked, and where.
        words: the server's.
        asked: what was asked for, where that is known.
    """
    code = words.partition(" ")[0]
    found = [
        meaning
        for meaning in _MEANINGS
        if code in meaning.codes or any(phrase in words for phrase in meaning.phrases)
    ]
    meaning = found[0] if found else _OTHER
    # The first sentence says what it is; what follows may be a page of advice.
    said = words.partition(". ")[0][:_MAX_WORDS].rstrip(".")
    what = meaning.what.format(user=endpoint.user, asked=asked, said=said)
    if meaning.reason:
        return endpoint.unusable(meaning.reason, what, meaning.advice)
    return endpoint.unreachable(what, meaning.advice)


def refused_right(endpoint: Endpoint, error: ServerError) -> MultielectError:
    """Return what it means that a batch was refused for want of a right."""
    batch, _, words = str(error).partition(f": {error.code} ")
    # Where the server is stands in the meaning already.
    batch = batch.removesuffix(f" at {error.server}")
    meaning = refusal(endpoint, f"{error.code} {words}", f"what {batch} takes")
    meaning.__cause__ = error
    return meaning


def is_cluster(endpoint: Endpoint) -> MultielectError:
    """Return the error of a server that says that it is a node of Redis Cluster."""
    what = _CLUSTER.what.format(said="it says so itself")
    return endpoint.unusable(_CLUSTER.reason, what, _CLUSTER.advice)


def explained(
    cause: BaseException, endpoint: Endpoint, heard: bytes, timeout_s: float
) -> MultielectError:
    """Return what an attempt to connect failed of.

    Args:
        cause: what was raised.
        endpoint: who connects, and where.
        heard: what the server said first.
        timeout_s: how long each answer was waited for.
    """
    if isinstance(cause, MultielectError):
        return cause
    ours = _of_what_was_heard(endpoint, heard) or _of_the_network(endpoint, cause)
    if ours is None:
        if isinstance(cause, (exceptions.TimeoutError, TimeoutError)):
            ours = endpoint.unreachable(f"it did not answer within {timeout_s:.3g} s")
        else:
            ours = _of_last_words(endpoint, cause, heard) or _of_the_server(endpoint, cause)
    ours.__cause__ = cause
    return ours


def _of_what_was_heard(endpoint: Endpoint, heard: bytes) -> MultielectError | None:
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
    """Return what a server refused that said so, and hung up before it was listened to."""
    words, _, rest = heard.partition(b"\r\n")
    if rest or not words.startswith(b"-") or isinstance(cause, exceptions.AuthenticationError):
        return None
    if not isinstance(cause, (exceptions.ConnectionError, OSError)):
        return None
    return refusal(endpoint, words[1:].decode(errors="replace"))


def _of_the_network(endpoint: Endpoint, cause: BaseException) -> MultielectError | None:
    for error in _chain(cause):
        if isinstance(error, ssl.SSLError):
            return _of_tls(endpoint, error)
        if isinstance(error, socket.gaierror):
            return endpoint.unreachable(
                f"its name cannot be resolved: {error.strerror}",
                "Is it spelt right, and known to the name server? It is tried again",
            )
        if isinstance(error, PermissionError):
            return endpoint.unusable(
                "permission",
                f"this process may not open it: {error.strerror}",
                "Give its user the right to connect there",
            )
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError)):
            return endpoint.unreachable(
                f"nobody listens there: {error.strerror}",
                "Is the server up, and the address right? It is tried again",
            )
    return None


def _of_the_server(endpoint: Endpoint, cause: BaseException) -> MultielectError:
    if isinstance(cause, exceptions.AuthenticationError):
        return _of_login(endpoint, str(cause))
    is_refusal = isinstance(cause, (exceptions.ResponseError, exceptions.BusyLoadingError))
    if is_refusal or "max number of clients" in text_of(cause):
        return refusal(endpoint, words_of(cause))
    if isinstance(cause, exceptions.InvalidResponse) or not isinstance(
        cause, (redis.RedisError, OSError)
    ):
        # What redis-py trips over is what the server said: it is asked nothing out of the way.
        return endpoint.malformed(in_words(cause)[:_MAX_WORDS])
    return endpoint.unreachable(_plain(cause))


def speaks_tls_error(endpoint: Endpoint) -> MultielectError:
    """Return the error of a server that was spoken to without TLS, and speaks it."""
    return endpoint.unusable("tls", _SPEAKS_TLS, _USE_TLS)


def speaks_no_tls_error(endpoint: Endpoint) -> MultielectError:
    """Return the error of a server that was spoken to in TLS, and does not speak it."""
    return endpoint.unusable("tls", _SPEAKS_NO_TLS, _USE_NO_TLS)


def _of_login(endpoint: Endpoint, words: str) -> MultielectError:
    if not endpoint.has_password:
        return refusal(endpoint, f"NOAUTH {words}")
    if "without any password" in words:
        return endpoint.unusable(
            "auth", f"it has no password, and one was given: {words}", "Leave the password out"
        )
    return endpoint.unusable(
        "auth",
        f"it does not accept the password of user {endpoint.user!r}: {words[:_MAX_WORDS]}",
        "Is the user known there and enabled, and the password right?",
    )


def _of_tls(endpoint: Endpoint, error: ssl.SSLError) -> MultielectError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return endpoint.unusable("tls", *certificate_fault(error))
    # It has one where OpenSSL gave it.
    reason = str(getattr(error, "reason", None) or "")
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"}:
        return speaks_no_tls_error(endpoint)
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)) or not reason:
        return endpoint.unreachable(f"it hung up in the midst of TLS: {_plain(error)}")
    if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
        return endpoint.unusable(
            "tls",
            f"it refused the handshake: {_plain(error)}",
            "It may want a certificate of this client: ssl_certfile=FILE and ssl_keyfile=FILE",
        )
    return endpoint.unusable(
        "tls",
        f"the two ends do not agree on TLS: {_plain(error)}",
        "Compare the versions, ciphers and certificates that each allows",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what it came of, at most a few."""
    for _ in range(5):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _plain(error: BaseException) -> str:
    found = [each for each in _chain(error) if isinstance(each, OSError) and each.strerror]
    text = str(found[0].strerror) if found else text_of(error)
    return text[:_MAX_WORDS].rstrip(".")
