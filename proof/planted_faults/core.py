"""Faults in the core: deadlines, terms, batches, lanes, drains and wakeups."""

from __future__ import annotations

from .fault import Edit, Fault

_SUITES = ("tests/core", "tests/simulation")


def _fault(name: str, about: str, *edits: Edit, suites: tuple[str, ...] = _SUITES) -> Fault:
    return Fault(name, about, edits, suites)


IN_THE_CORE = (
    _fault(
        "anchor-at-reply",
        "the deadline counts from the reply, not from the send",
        Edit(
            "_core/states.pyx",
            "deadline_ns = sent_ns + self.ttl_ns - self.margin_ns",
            "deadline_ns = now_ns + self.ttl_ns - self.margin_ns",
        ),
        Edit(
            "_core/outcomes.pxd",
            "store_i64(&slot.deadline_ns, sent_ns + self.ttl_ns - self.margin_ns)",
            "store_i64(&slot.deadline_ns, now_ns + self.ttl_ns - self.margin_ns)",
        ),
    ),
    _fault(
        "cached-boolean",
        "is_leader is what the last event said, without the clock",
        Edit(
            "_core/candidacy.pyx",
            "return deadline_ns != 0 and self.clock.now() < deadline_ns",
            "return deadline_ns != 0",
        ),
    ),
    _fault(
        "no-margin",
        "no margin before the lease's end",
        Edit(
            "_core/states.pyx",
            "deadline_ns = sent_ns + self.ttl_ns - self.margin_ns",
            "deadline_ns = sent_ns + self.ttl_ns",
        ),
    ),
    _fault(
        "slow-is-silent",
        "a connection is given up for its oldest batch, though others are answered",
        Edit(
            "_core/lane.pyx",
            "        return max(self._batch(0).sent_ns, self.answered_ns)\n",
            "        return self._batch(0).sent_ns\n",
        ),
    ),
    _fault(
        "refresh-upon-refresh",
        "a lease is refreshed again while a refresh of it is in flight",
        Edit(
            "_core/terms.pyx",
            "                if slot.refreshing:\n",
            "                if slot.refreshing > 2:\n",
        ),
    ),
    _fault(
        "turn-is-lost",
        "a lease whose turn comes while it is refreshed waits for its next turn",
        Edit(
            "_core/terms.pyx",
            "                    slot.refreshing = 2\n",
            "                    slot.refreshing = 1\n",
        ),
    ),
    _fault(
        "refresh-group-is-not-told",
        "a lease that joins a refresh group does not bring its timer forward",
        Edit(
            "_core/states.pyx",
            "        self.refresh_groups.bring_forward(slot.bucket, min(\n"
            "            self.refresh_groups.join(slot.bucket, sent_ns), deadline_ns))\n",
            "        self.refresh_groups.join(slot.bucket, sent_ns)\n"
            "        self.refresh_groups.bring_forward(slot.bucket, deadline_ns)\n",
        ),
    ),
    _fault(
        "stopping-node-stands-again",
        "a node that stops stands again for what it loses meanwhile",
        Edit(
            "_core/states.pyx",
            "        if not self.running:\n            return self._enter_idle(number)\n"
            "        if self.slots",
            "        if self.slots",
        ),
    ),
    _fault(
        "lost-acquire-adopted",
        "an acquire whose reply was lost is taken for won",
        Edit(
            "_core/replies.pyx",
            "                self.terms.acquire_failed(entry.number, 0)\n",
            "                self.terms.won(entry.number, "
            "self.terms.slots.at(entry.number).epoch + 1, 0, batch.sent_ns, now_ns)\n",
        ),
    ),
    _fault(
        "reply-of-another-term",
        "a reply counts for another term than the one that asked",
        Edit(
            "_core/replies.pyx",
            "        if self.terms.slots.at(entry.number).serial == entry.serial:\n",
            "        if self.terms.slots.at(entry.number).serial >= entry.serial:\n",
        ),
    ),
    _fault(
        "late-refresh-revives",
        "a refresh that is answered after the deadline extends the term",
        Edit(
            "_core/outcomes.pxd",
            "        if now_ns >= slot.deadline_ns:\n"
            "            return self._expire(number, now_ns)\n",
            "",
        ),
    ),
    _fault(
        "refresh-after-deadline",
        "a term whose deadline has passed is refreshed once more, not ended",
        Edit(
            "_core/terms.pyx",
            "                if now_ns >= slot.deadline_ns:\n"
            "                    self._expire(number, now_ns)\n"
            "                else:\n"
            "                    ends_ns = min(ends_ns, slot.deadline_ns)\n",
            "                if now_ns >= slot.deadline_ns + self.ttl_ns:\n"
            "                    self._expire(number, now_ns)\n"
            "                else:\n"
            "                    ends_ns = min(ends_ns, slot.deadline_ns + self.ttl_ns)\n",
        ),
        Edit(
            "_core/terms.pxd",
            "        if now_ns >= slot.deadline_ns:\n"
            "            self._expire(number, now_ns)\n"
            "            return 0\n",
            "",
        ),
    ),
    _fault(
        "clock-jump-ignored",
        "terms go on though the server's clock jumped beyond their leases",
        Edit(
            "_core/replies.pyx",
            "            ended = self.terms.shorten_leases(self.lane, jump_ns, now_ns)\n",
            "",
        ),
    ),
    _fault(
        "mismatch-ignored",
        "a lease that is not ours is taken for refreshed",
        Edit(
            "_core/replies.pyx",
            "                self.terms.lease_lost(entry.number, now_ns)\n",
            "                self.terms.refreshed(entry.number, batch.sent_ns, now_ns)\n",
        ),
    ),
    _fault(
        "wakeup-missed",
        "an election that is set free while it is asked for is not asked for again",
        Edit(
            "_core/outcomes.pyx",
            "        if (slot.woken or (self.balanced",
            "        if ((self.balanced",
        ),
    ),
    _fault(
        "watched-is-claimed",
        "an election that is assigned while it is only looked at is taken for claimed",
        Edit(
            "_core/outcomes.pyx",
            "(self.balanced and not claimed and slot.eligibility == ELIGIBLE)",
            "False",
        ),
    ),
    _fault(
        "grant-is-forgotten",
        "what was granted is not taken once it is assigned to another",
        Edit(
            "_core/drains.pyx",
            "        if self.slots.at(number).woken != GRANTED:\n            self.queues",
            "        if True:\n            self.queues",
        ),
    ),
    _fault(
        "lane-keeps-what-waits",
        "what waits in a bucket stays behind when another lane serves the bucket",
        Edit(
            "_core/queues.pyx",
            "            if ready[ring]:\n                self.join(bucket, ring)\n",
            "            pass\n",
        ),
    ),
    _fault(
        "lane-loses-all",
        "a connection that is made anew asks for the elections of all lanes, through its own",
        Edit(
            "_core/terms.pyx",
            "            self._refresh_bucket(bucket)\n"
            "            bucket = self.queues.next_of_lane(lane, bucket + 1)\n",
            "            self._refresh_bucket(bucket)\n"
            "            bucket = bucket + 1 if bucket + 1 < self.queues.bucket_count else NONE\n",
        ),
    ),
    _fault(
        "jump-of-another-server",
        "a jump of one server's clock shortens the leases at all servers",
        Edit(
            "_core/terms.pyx",
            "                ended += self.shorten_bucket(bucket, by_ns, now_ns)\n"
            "            bucket = self.queues.next_of_lane(lane, bucket + 1)\n",
            "                ended += self.shorten_bucket(bucket, by_ns, now_ns)\n"
            "            bucket = bucket + 1 if bucket + 1 < self.queues.bucket_count else NONE\n",
        ),
    ),
    _fault(
        "bucket-waits-behind-another",
        "a bucket that fills again and again goes first each time",
        Edit(
            "_core/lane.pyx",
            "            self.terms.queues.rotate(self.index, queue)\n",
            "            pass\n",
        ),
    ),
    _fault(
        "two-slots-in-a-script",
        "a script for a cluster's server is given keys of two buckets",
        Edit(
            "_core/lane.pyx",
            "        if batch.count == 0 or not self.redirects.is_cluster:\n",
            "        if True:\n",
        ),
    ),
    _fault(
        "wakeups-ignored",
        "whoever stands by waits for the lease's end, though it was released",
        Edit(
            "_core/wakeups.pyx",
            "        return self._wake_all(&words, False)\n",
            "        return 0\n",
        ),
    ),
    _fault(
        "grant-is-a-term",
        "what is granted to others is taken for one's own",
        Edit(
            "_core/wakeups.pyx",
            "        if (length != self.holder_length or memcmp(to, self.holder_text, "
            "length) != 0\n"
            "                or not _next_word(words, &word, &size)):",
            "        if not _next_word(words, &word, &size):",
        ),
    ),
    _fault(
        "handover-without-successor",
        "a term is given away though nobody is there to take it",
        Edit(
            "_core/states.pyx",
            "        return slot.successor != NONE and slot.claimant == slot.successor\n",
            "        return slot.successor != NONE\n",
        ),
    ),
    _fault(
        "full-node-makes-no-room",
        "a node that is full of what is nobody's share does not make room for its own",
        Edit(
            "_core/drains.pyx",
            "                or not (slot.unassigned or now_ns - self.crowded_ns >= self.ttl_ns)\n",
            "                or slot.unassigned or now_ns - self.crowded_ns < self.ttl_ns\n",
        ),
    ),
    _fault(
        "full-node-makes-too-much-room",
        "a full node does not count the terms that drain already, and gives up more than it needs",
        Edit(
            "_core/drains.pyx",
            "- self.population[<int>LEADING]\n                             + self.draining)\n",
            "- self.population[<int>LEADING])\n",
        ),
    ),
    _fault(
        "noscript-not-resent",
        "a script that the server forgot is not brought again",
        Edit(
            "_core/replies.pyx",
            "            self.writer.loaded[batch.request] = False\n            # Of a batch",
            "            # Of a batch",
        ),
    ),
    _fault(
        "refused-script-is-loaded",
        "a script whose text was refused is taken for known to the server",
        Edit(
            "_core/replies.pyx",
            "            self.writer.loaded[batch.request] = False\n"
            "            self.writer.rejected[batch.request] = True\n",
            "            self.writer.rejected[batch.request] = True\n",
        ),
    ),
    _fault(
        "newer-epoch-ignored",
        "a leader that learns of a newer epoch leads on",
        Edit(
            "_core/elections.pyx",
            "                    ended = self.terms.learn_epoch(number, newest_epoch, now_ns)\n",
            "                    ended = 0\n",
        ),
    ),
    _fault(
        "floor-not-sent",
        "the server is not told above which epoch the next one must be",
        Edit(
            "_core/lane.pyx",
            "self._count_floors(batch) if self.terms.has_floors else 0",
            "0",
        ),
    ),
    _fault(
        "stale-epoch-led",
        "a term begins under an epoch that is not above the newest that is known",
        Edit(
            "_core/outcomes.pyx",
            "        if (epoch > slot.epoch and epoch > slot.phase.floor and not slot.unwanted\n",
            "        if (not slot.unwanted\n",
        ),
    ),
    _fault(
        "release-of-another",
        "an election that was removed releases the lease of the one added in its place",
        Edit(
            "_core/outcomes.pyx",
            "        if is_sole and epoch > slot.epoch",
            "        if epoch > slot.epoch",
        ),
    ),
)
