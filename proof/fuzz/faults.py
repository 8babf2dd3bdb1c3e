"""Faults that are planted in copies of the core. The fuzzers must find each of them.

Rules of this file:
    * A fault is what a tired engineer might write. It changes one place.
    * These faults were never in the core. For a fault that was, there is a test or an input in
      `found/`.
"""

from __future__ import annotations

from .build import Fault

FAULTS = (
    Fault(
        "line-end-first",
        "resp",
        "if stop <= line or (stop - 1)[0] != c'\\r':",
        "if stop == line or (stop - 1)[0] != c'\\r' or stop - 1 < line:",
        "replies",
    ),
    Fault(
        "text-without-its-end",
        "resp",
        "if <size_t>(cursor.end - value.text) < value.length + 2:",
        "if <size_t>(cursor.end - value.text) < value.length:",
        "replies",
    ),
    Fault(
        "number-overflows",
        "resp",
        "if text == end or end - text > 18:",
        "if text == end or end - text > 20:",
        "replies",
    ),
    Fault(
        "attributes-counted-wrong",
        "resp",
        "return 2 * value.number + 1",
        "return 2 * value.number",
        "replies",
    ),
    Fault(
        "scanned-place-kept",
        "resp",
        "            self.scanned -= self.start\n",
        "",
        "replies",
    ),
    Fault(
        "frame-without-bound",
        "resp",
        "return BAD if self.end - self.start > self.largest else PARTIAL",
        "return PARTIAL",
        "replies",
    ),
    Fault(
        "place-beyond-the-batch",
        "replies",
        "or not least <= value.number <= most):",
        "or not least <= value.number):",
        "exchanges",
    ),
    Fault(
        "holder-that-was-not-named",
        "replies",
        "if not 0 <= other < others.count:",
        "if not 0 <= other < 250:",
        "exchanges",
    ),
    Fault(
        "names-never-let-go",
        "replies",
        "            self.terms.holders.drop(others.places[i])\n",
        "            pass\n",
        "exchanges",
    ),
    Fault(
        "forgotten-after-an-error",
        "replies",
        "                    self.terms.acquire_refused(entry.number, now_ns)\n"
        "            elif value.kind",
        "                    pass\n            elif value.kind",
        "exchanges",
    ),
    Fault(
        "answer-to-an-older-state",
        "replies",
        "            if self.is_void(entry):\n                continue\n"
        "            if marks[i] == MOVED:",
        "            if marks[i] == MOVED:",
        "exchanges",
    ),
    Fault(
        "netstring-beyond-its-message",
        "wakeups",
        "            or <size_t>(words.end - here - 1) < size):",
        "            or size > 64):",
        "exchanges",
    ),
    Fault(
        "asks-that-are-forgotten",
        "lane",
        "        while self.redirects.take(self.index, self._batch(0)):\n"
        "            self.replies.give_back(self._batch(0), now_ns, 0)\n",
        "        while self.redirects.take(self.index, self._batch(0)):\n            pass\n",
        "exchanges",
    ),
)
