"""Faults in what the core does about the redirections and outages of a cluster's nodes."""

from __future__ import annotations

from .fault import Edit, Fault


def _fault(name: str, about: str, *edits: Edit, suite: str) -> Fault:
    return Fault(name, about, edits, (f"tests/core/test_{suite}.py", "tests/core"))


IN_A_CLUSTER = (
    _fault(
        "moved-waits-for-the-map",
        "a redirection to a node with a lane is not followed before the slot map is read",
        Edit(
            "_core/redirects.pyx",
            "        self.slot_map.give(slot, slot, to)\n",
            "        self.slot_map.give(slot, slot, NO_LANE)\n",
        ),
        suite="redirects",
    ),
    _fault(
        "moved-without-end",
        "two nodes that send us to each other are followed without end",
        Edit(
            "_core/redirects.pyx",
            "        if to == lane or self.followed[slot] == MAX_FOLLOWED:\n",
            "        if to == lane:\n",
        ),
        suite="redirects",
    ),
    _fault(
        "old-moved-counts",
        "a redirection that is older than the slot map takes the slot away again",
        Edit(
            "_core/redirects.pyx",
            "        if self.slot_map.lane_of[slot] != lane:\n",
            "        if False:\n",
        ),
        suite="redirects",
    ),
    _fault(
        "moved-wants-no-map",
        "a redirection does not have the slot map read again",
        Edit(
            "_core/redirects.pyx",
            "        self.wants_slots = True\n        if to == lane",
            "        if to == lane",
        ),
        suite="redirects",
    ),
    _fault(
        "any-host-of-that-port",
        "a redirection is followed to another host that has the same port",
        Edit(
            "_core/redirects.pyx",
            "memcmp(self.addresses[lane].text, address.text, address.length) == 0):\n",
            "memcmp(self.addresses[lane].text + address.length - 5,\n"
            "                               address.text + address.length - 5, 5) == 0):\n",
        ),
        suite="redirects",
    ),
    _fault(
        "asked-without-asking",
        "the importing node of a slot is asked without ASKING",
        Edit("_core/redirects.pyx", "        batch.asking = 2\n", "        batch.asking = 0\n"),
        suite="migrations",
    ),
    _fault(
        "ask-of-many",
        "of a batch that was redirected by ASK only the first election is asked about",
        Edit(
            "_core/replies.pyx",
            "        if batch.count != 1:\n            return self._split",
            "        if batch.count == 0:\n            return self._split",
        ),
        suite="migrations",
    ),
    _fault(
        "asks-go-with-their-lane",
        "what waits to be asked on a lane is forgotten when the lane's connection is lost",
        Edit(
            "_core/lane.pyx",
            "        while self.redirects.take(self.index, self._batch(0)):\n"
            "            self.replies.give_back(self._batch(0), now_ns, 0)\n",
            "        while self.redirects.take(self.index, self._batch(0)):\n            pass\n",
        ),
        suite="migrations",
    ),
    _fault(
        "ask-of-another-term",
        "what waits to be asked is asked although the election has gone on",
        Edit(
            "_core/lane.pyx",
            "            if not self.replies.is_void(&self._batch(self.in_flight).entries[0]):\n",
            "            if True:\n",
        ),
        suite="migrations",
    ),
    _fault(
        "split-for-ever",
        "the leases of a slot that was migrated are refreshed one by one ever after",
        Edit(
            "_core/replies.pyx",
            "bucket] = now_ns + self.terms.refresh_ns\n",
            "bucket] = now_ns + 1000 * self.terms.refresh_ns\n",
        ),
        suite="migrations",
    ),
    _fault(
        "tryagain-at-once",
        "what was answered TRYAGAIN is tried again at once, without end",
        Edit(
            "_core/replies.pyx",
            "            # The keys of one election are at two nodes. They will be at one soon.\n"
            "            self.give_back(batch, now_ns, self.terms.retry_ns(now_ns))\n",
            "            self.give_back(batch, now_ns, 0)\n",
        ),
        suite="migrations",
    ),
    _fault(
        "down-is-tried-at-once",
        "a node that serves nothing is tried again at once, without end",
        Edit(
            "_core/replies.pyx",
            "        self.held_until_ns = now_ns + HOLD_NS\n",
            "        self.held_until_ns = now_ns\n",
        ),
        suite="outages",
    ),
    _fault(
        "down-is-tried-with-all",
        "a node that serves nothing gets all that is due, again and again",
        Edit(
            "_core/lane.pyx",
            "        return 1 if self.replies.is_held else <uint32_t>MAX_IN_FLIGHT\n",
            "        return <uint32_t>MAX_IN_FLIGHT\n",
        ),
        suite="outages",
    ),
    _fault(
        "refusal-shifts-replies",
        "a SUBSCRIBE that is refused is taken for the reply to a batch",
        Edit(
            "_core/lane.pyx",
            "            if self.is_subscribing and self.before_subscribe == 0 and "
            "frame.here[0] == c'-':\n",
            "            if False:\n",
        ),
        suite="outages",
    ),
    _fault(
        "deaf-until-now",
        "a node that hears announcements again does not ask for what it has missed",
        Edit("_core/lane.pyx", "                    self.terms.acquire_all_lanes()\n", ""),
        suite="outages",
    ),
)
