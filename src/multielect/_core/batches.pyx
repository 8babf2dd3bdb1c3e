# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""What is due, in batches, and as it goes out.

Rules of this file:
    * A script is given at most `MAX_KEYS` Redis keys.
    * The first batch of a connection that needs a script brings its text, and the others name it,
      without waiting for what becomes of the first. If that is refused, the next brings it again.
    * Nothing here needs the GIL: no exception but for memory.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from .schedule cimport GRANTS, RELEASES
from .slots cimport NONE, Slot, padded
from .states cimport ACQUIRE, ELIGIBLE, GRANT, MEMBERSHIP, REFRESH, RELEASE, REQUESTS

cdef extern from *:
    """
    #include <string.h>
    /* In whole words, which may read and write up to 7 bytes more: a call of memcpy for so few
       bytes costs more than they do. */
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


cdef inline int _put_key(Outgoing outgoing, Text *prefix, Slot *slot,
                         KeyKind kind) except -1 nogil:
    # Written in place: there is one for each lease that is refreshed.
    cdef size_t total = prefix.length + slot.key_length + (7 if kind == LEADER_KEY else 6)
    cdef char *here
    outgoing.reserve(total + 48)
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
    return 0


cdef class Batches:
    """Takes from the terms what is due, and writes it."""

    def __cinit__(self, Terms terms, MembershipPoll membership, *_, tuple key_prefixes,
                  bytes holder, bytes channel, bytes epochs, int64_t retention_ms):
        cdef Py_ssize_t i
        cdef bytes ttl_ms = b"%d" % (terms.ttl_ns // 1_000_000)
        cdef bytes grant_ms = b"%d" % (terms.grant_ns // 1_000_000)
        self.terms = terms
        self.membership = membership
        self.outgoing = Outgoing()
        cdef size_t total = 0
        cdef bytes retention = b"%d" % retention_ms
        self.kept = (holder, channel, epochs, ttl_ms, grant_ms, retention)
        self.holder = _text(holder)
        self.channel = _text(channel)
        self.epochs = _text(epochs)
        self.ttl_ms = _text(ttl_ms)
        self.grant_ms = _text(grant_ms)
        self.retention_ms = _text(retention)
        self.epochs_expire = retention_ms != 0
        self.key_prefixes = <Text *>calloc(len(key_prefixes), sizeof(Text))
        self.prefix_text = <char *>calloc(
            sum([padded(len(prefix)) for prefix in key_prefixes]) or 1, 1)
        if self.key_prefixes == NULL or self.prefix_text == NULL:
            raise MemoryError
        for i in range(len(key_prefixes)):
            self.key_prefixes[i].data = self.prefix_text + total
            self.key_prefixes[i].length = len(key_prefixes[i])
            memcpy(self.prefix_text + total, <const char *><bytes>key_prefixes[i],
                   self.key_prefixes[i].length)
            total += padded(self.key_prefixes[i].length)

    def __dealloc__(self):
        free(self.key_prefixes)
        free(self.prefix_text)

    cdef void take_scripts(self, scripts) except *:
        """Write by these scripts, none of which the server is known to have."""
        cdef int request
        release, grant = scripts.release, scripts.grant
        if self.epochs_expire:
            release, grant = scripts.expiring_release, scripts.expiring_grant
        self.scripts = (scripts.acquire, scripts.refresh, release, grant, scripts.membership)
        for request in range(<int>REQUESTS):
            self.bodies[request] = _text(self.scripts[request].body)
            self.digests[request] = _text(self.scripts[request].sha)

    cdef void forget_loaded(self) noexcept nogil:
        """Bring each script again: this is another connection."""
        cdef int request
        for request in range(<int>REQUESTS):
            self.loaded[request] = False
            self.rejected[request] = False

    cdef int _collect(self, ScriptBatch *batch, uint8_t request, int64_t now_ns) except -1 nogil:
        """Fill the batch with what is due of one kind; returns how many."""
        cdef uint32_t most = self.terms.batch_keys
        cdef uint32_t number
        cdef int found
        if request != REFRESH:
            most = min(most, <uint32_t>MAX_KEYS // self._stride(request))
        batch.request = request
        batch.count = 0
        if request == MEMBERSHIP:
            if not self.membership.is_due(now_ns):
                return 0
            self.membership.begun(now_ns)
            return 1
        if request == REFRESH:
            batch.count = self.terms.next_refreshes(batch.entries, most, now_ns)
            self.terms.events.tally.refreshes += batch.count
            return batch.count
        while batch.count < most:
            if request == RELEASE:
                found = self.terms.next_release(RELEASES, &number)
            elif request == GRANT:
                found = self.terms.next_release(GRANTS, &number)
            else:
                found = self._next_acquire(batch, &number)
            if not found:
                break
            batch.entries[batch.count].number = number
            batch.entries[batch.count].serial = self.terms.slots.at(number).serial
            batch.count += 1
        if request == ACQUIRE:
            self.terms.events.tally.checks += batch.count
            batch.floors = self._count_floors(batch) if self.terms.has_floors else 0
        return batch.count

    cdef int _next_acquire(self, ScriptBatch *batch, uint32_t *number) except -1 nogil:
        # What is only looked at claims nothing, and does not share a batch with what is to be led.
        cdef bint claims
        number[0] = self.terms.peek_acquire()
        if number[0] == NONE:
            return 0
        claims = self.terms.balanced and self.terms.slots.at(number[0]).eligibility == ELIGIBLE
        if batch.count == 0:
            batch.claims = claims
        elif batch.claims != claims:
            return 0
        return self.terms.next_acquire(number)

    cdef uint32_t _count_floors(self, ScriptBatch *batch) noexcept nogil:
        cdef uint32_t i, count = 0
        for i in range(batch.count):
            count += self.terms.slots.at(batch.entries[i].number).phase.floor != 0
        return count

    cdef int _write(self, ScriptBatch *batch) except -1 nogil:
        cdef uint32_t i, number
        cdef Slot *slot
        cdef uint32_t stride = self._stride(batch.request)
        cdef int64_t keys = stride * <int64_t>batch.count
        if batch.request == MEMBERSHIP:
            return self._write_membership(batch)
        self.outgoing.reserve(32)
        self.outgoing.put_header(c'*', 3 + keys + self._argument_count(batch))
        self._write_script(batch)
        self.outgoing.put_integer(keys)
        for i in range(batch.count):
            slot = self.terms.slots.at(batch.entries[i].number)
            _put_key(self.outgoing, &self.key_prefixes[slot.bucket], slot, LEADER_KEY)
            if stride > 1:
                _put_key(self.outgoing, &self.key_prefixes[slot.bucket], slot, EPOCH_KEY)
            if stride > 2:
                _put_key(self.outgoing, &self.key_prefixes[slot.bucket], slot, FENCE_KEY)
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

    cdef int _write_floors(self, ScriptBatch *batch) except -1 nogil:
        cdef uint32_t i
        cdef Slot *slot
        for i in range(batch.count):
            slot = self.terms.slots.at(batch.entries[i].number)
            if slot.phase.floor != 0:
                self.outgoing.put_integer(i + 1)
                self.outgoing.put_integer(slot.phase.floor)
        return 0

    cdef uint32_t _stride(self, uint8_t request) noexcept nogil:
        """How many keys an election has in a script."""
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
        # The first batch of a connection brings the script's text; those behind it in
        # the pipeline can name it already.
        batch.by_digest = self.loaded[batch.request]
        if batch.by_digest:
            self.outgoing.put_bulk(b"EVALSHA", 7)
            return self._write_text(&self.digests[batch.request])
        self.loaded[batch.request] = True
        self.outgoing.put_bulk(b"EVAL", 4)
        return self._write_text(&self.bodies[batch.request])

    cdef int _write_text(self, Text *text) except -1 nogil:
        return self.outgoing.put_bulk(text.data, text.length)
