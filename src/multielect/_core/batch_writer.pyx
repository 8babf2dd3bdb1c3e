# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""Writes each batch as the call of a script.

Rules of this file:
    * The first batch of a connection that needs a script sends the script's text (EVAL). Later
      batches name its digest (EVALSHA), even before the first is answered. If the server refuses a
      batch with the text, the next batch sends the text again.
    * No function here needs the GIL. None raises but for lack of memory.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from .slots cimport NONE, Slot, padded
from .states cimport ACQUIRE, GRANT, MEMBERSHIP, REFRESH, RELEASE, REQUESTS

cdef extern from *:
    """
    #include <string.h>
    /* Copies whole words, so it may read and write up to 7 bytes too many. For so few bytes the
       call of memcpy would cost more than the copy. */
    static inline char *multielect_copy(char *to, const char *from, size_t length) {
        for (size_t i = 0; i < length; i += 8) {
            uint64_t word;
            memcpy(&word, from + i, 8);
            memcpy(to + i, &word, 8);
        }
        return to + length;
    }
    """
    char *copy_words "multielect_copy" (char *to, const char *start, size_t length) noexcept nogil

cdef enum:
    MEMBERSHIP_KEYS = 2     # the members and their plan
    KEY_FRAME_BYTES = 48    # RESP and suffix of a key, and what `copy_words` may write beyond it

cdef enum KeyKind:
    LEADER_KEY
    EPOCH_KEY
    FENCE_KEY


cdef Text _text(bytes source):
    """Point into `source`, which the caller keeps alive."""
    cdef Text text
    text.data = source
    text.length = len(source)
    return text


cdef inline void _put_key(Outgoing outgoing, Text *prefix, Slot *slot, KeyKind kind) noexcept nogil:
    # Writes in place for speed, as each lease that is refreshed has a key.
    cdef size_t total = prefix.length + slot.key_length + (7 if kind == LEADER_KEY else 6)
    cdef char *here
    outgoing.put_header(c'$', total)
    here = outgoing.data + outgoing.end
    here = copy_words(here, prefix.data, prefix.length)
    here = copy_words(here, slot.key, slot.key_length)
    if kind == LEADER_KEY:
        memcpy(here, b":leader\r\n", 9)
    elif kind == EPOCH_KEY:
        memcpy(here, b":epoch\r\n", 8)
    else:
        memcpy(here, b":fence\r\n", 8)
    outgoing.end += total + 2


cdef class KeyPrefixes:
    """The key prefix of each bucket."""

    def __cinit__(self, tuple prefixes):
        cdef Py_ssize_t i
        cdef size_t total = 0
        self.items = <Text *>calloc(len(prefixes), sizeof(Text))
        self.text = <char *>calloc(sum([padded(len(prefix)) for prefix in prefixes]) or 1, 1)
        if self.items == NULL or self.text == NULL:
            raise MemoryError
        for i in range(len(prefixes)):
            self.items[i].data = self.text + total
            self.items[i].length = len(prefixes[i])
            memcpy(self.text + total, <const char *><bytes>prefixes[i], self.items[i].length)
            total += padded(self.items[i].length)
            self.max_length = max(self.max_length, self.items[i].length)

    def __dealloc__(self):
        free(self.items)
        free(self.text)


cdef class BatchWriter:
    """Writes the batches of one connection after another."""

    def __cinit__(self, Terms terms, MembershipPoll membership, KeyPrefixes prefixes, *,
                  bytes holder, bytes channel, bytes epochs, int64_t retention_ms):
        cdef bytes ttl_ms = b"%d" % (terms.ttl_ns // 1_000_000)
        cdef bytes grant_ms = b"%d" % (terms.grant_ns // 1_000_000)
        cdef bytes retention = b"%d" % retention_ms
        self.terms = terms
        self.membership = membership
        self.prefixes = prefixes
        self.outgoing = Outgoing()
        self.kept = (holder, channel, epochs, ttl_ms, grant_ms, retention)
        self.holder = _text(holder)
        self.channel = _text(channel)
        self.epochs = _text(epochs)
        self.ttl_ms = _text(ttl_ms)
        self.grant_ms = _text(grant_ms)
        self.retention_ms = _text(retention)
        self.epochs_expire = retention_ms != 0

    cdef void take_scripts(self, scripts) except *:
        """Use these scripts from now on."""
        cdef int request
        release, grant = scripts.release, scripts.grant
        if self.epochs_expire:
            release, grant = scripts.expiring_release, scripts.expiring_grant
        self.scripts = (scripts.acquire, scripts.refresh, release, grant, scripts.membership)
        for request in range(<int>REQUESTS):
            self.bodies[request] = _text(self.scripts[request].body)
            self.digests[request] = _text(self.scripts[request].sha)

    cdef void forget_loaded(self) noexcept nogil:
        """Send the text of each script again, as the connection is new."""
        cdef int request
        for request in range(<int>REQUESTS):
            self.loaded[request] = False
            self.rejected[request] = False

    cdef int write(self, ScriptBatch *batch) except -1 nogil:
        """Write the batch behind the bytes that wait to be sent."""
        cdef uint32_t i, number
        cdef Slot *slot
        cdef Text *prefix
        cdef uint32_t stride = self.keys_of_each(batch.request)
        cdef int64_t keys = stride * <int64_t>batch.count
        if batch.asking:
            self.outgoing.reserve(16)
            self.outgoing.put(b"*1\r\n$6\r\nASKING\r\n", 16)
        if batch.request == MEMBERSHIP:
            return self._write_membership(batch)
        self.outgoing.reserve(32)
        self.outgoing.put_header(c'*', 3 + keys + self._argument_count(batch))
        self._write_script(batch)
        self.outgoing.put_integer(keys)
        # Reserves for all keys at once: a check for each key would cost more than to write it.
        self.outgoing.reserve(<size_t>keys * (self.prefixes.max_length
                                              + self.terms.slots.max_key_length + KEY_FRAME_BYTES))
        for i in range(batch.count):
            slot = self.terms.slots.at(batch.entries[i].number)
            prefix = &self.prefixes.items[slot.bucket]
            _put_key(self.outgoing, prefix, slot, LEADER_KEY)
            if stride > 1:
                _put_key(self.outgoing, prefix, slot, EPOCH_KEY)
            if stride > 2:
                _put_key(self.outgoing, prefix, slot, FENCE_KEY)
        self._write_text(&self.holder)
        if batch.request == REFRESH:
            return self._write_text(&self.ttl_ms)
        if batch.request == ACQUIRE:
            self._write_text(&self.ttl_ms)
            self._write_text(&self.epochs)
            if batch.claims:
                self._write_text(&self.channel)
            else:
                self.outgoing.put_bulk(b"", 0)
            return self._write_floors(batch) if batch.floors else 0
        self._write_text(&self.channel)
        if batch.request == GRANT:
            self._write_text(&self.grant_ms)
        for i in range(batch.count):
            number = batch.entries[i].number
            slot = self.terms.slots.at(number)
            self.outgoing.put_integer(slot.phase.floor if slot.mark.moved else slot.epoch)
            if batch.request == GRANT:
                self._write_successor(number)
        return self._write_text(&self.retention_ms) if self.epochs_expire else 0

    cdef int write_subscribe(self) except -1 nogil:
        """Write the command that has this connection hear the announcements, over RESP3."""
        self.outgoing.reserve(32)
        self.outgoing.put_header(c'*', 2)
        self.outgoing.put_bulk(b"SUBSCRIBE", 9)
        return self._write_text(&self.channel)

    cdef int _write_floors(self, ScriptBatch *batch) except -1 nogil:
        cdef uint32_t i
        cdef Slot *slot
        for i in range(batch.count):
            slot = self.terms.slots.at(batch.entries[i].number)
            if slot.phase.floor != 0:
                self.outgoing.put_integer(i + 1)
                self.outgoing.put_integer(slot.phase.floor)
        return 0

    cdef uint32_t keys_of_each(self, uint8_t request) noexcept nogil:
        """Return how many Redis keys each election has in a script."""
        if request == REFRESH:
            return 1
        return 3 if self.epochs_expire and request != ACQUIRE else 2

    cdef int64_t _argument_count(self, ScriptBatch *batch) noexcept nogil:
        if batch.request == ACQUIRE:
            return 4 + 2 * <int64_t>batch.floors
        if batch.request == RELEASE:
            return 2 + batch.count + self.epochs_expire
        if batch.request == GRANT:
            return 3 + 2 * batch.count + self.epochs_expire
        return 2

    cdef int _write_membership(self, ScriptBatch *batch) except -1 nogil:
        self.outgoing.reserve(32)
        self.outgoing.put_header(c'*', 3 + self.membership.word_count)
        self._write_script(batch)
        self.outgoing.put_integer(MEMBERSHIP_KEYS)
        self.outgoing.reserve(self.membership.length)
        self.outgoing.put(self.membership.words, self.membership.length)
        return 0

    cdef int _write_successor(self, uint32_t number) except -1 nogil:
        cdef uint32_t successor = self.terms.slots.at(number).successor
        if successor == NONE:
            return self.outgoing.put_bulk(b"", 0)
        return self.outgoing.put_bulk(self.terms.holders.items[successor].text,
                                      self.terms.holders.items[successor].length)

    cdef int _write_script(self, ScriptBatch *batch) except -1 nogil:
        # Redis runs batches in order, so those behind the first can name the digest at once.
        batch.by_digest = self.loaded[batch.request]
        if batch.by_digest:
            self.outgoing.put_bulk(b"EVALSHA", 7)
            return self._write_text(&self.digests[batch.request])
        self.loaded[batch.request] = True
        self.outgoing.put_bulk(b"EVAL", 4)
        return self._write_text(&self.bodies[batch.request])

    cdef int _write_text(self, Text *text) except -1 nogil:
        return self.outgoing.put_bulk(text.data, text.length)
