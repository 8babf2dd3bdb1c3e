"""The plan of the fleet as this node knows it, and the plan that it proposes to keep next.

Rules of this file:
    * Every member would propose the same plan for a changed fleet. The eldest member proposes it,
      and the others follow in turn if the eldest does not.
    * No lock and no I/O: the balancer calls this, and sends the proposal with its next poll.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..balance import Assignment
from .membership import POLLS_PER_TTL, Membership
from .plan import Plan, following, read_plan


class Proposals:
    """The newest plan, and the proposal for the next one.

    Attributes:
        plan: the newest plan; None if there is none, or if it is malformed.
        number: the number of the newest plan; 0 if there is none.
        sent: the proposal that each poll carries; empty for none.
    """

    def __init__(self, period_ns: int) -> None:
        """Begin without a plan.

        Args:
            period_ns: the time between two polls of a member.
        """
        self.plan: Plan | None = None
        self.number = 0
        self.sent = b""
        self._period_ns = period_ns
        self._kept_number = 0
        self._proposal = b""
        self._proposed_ns = 0

    def take(self, membership: Membership) -> bool:
        """Take the plan of an answer. Returns whether it is newer than the known plan.

        Raises:
            ValueError: if the newer plan is malformed.
        """
        self._kept_number = membership.plan_number
        if membership.plan_number <= self.number:
            return False
        self.number = membership.plan_number
        self.plan = None
        self.plan = read_plan(membership.plan_number, membership.plan_text)
        return True

    def next(
        self,
        assignment: Assignment,
        plan: Plan | None,
        *,
        holder: str,
        eldest: Sequence[str],
        now_ns: int,
    ) -> tuple[bytes, int]:
        """Return the proposal, which may be empty, and when it is this node's turn to send it.

        Args:
            assignment: the assignment that follows from `plan`.
            plan: the plan.
            holder: this node's holder.
            eldest: the holders of all members that may lead anything, eldest first.
            now_ns: the time.
        """
        if plan is not None and self._kept_number < plan.number:
            proposal = plan.numbered_text  # the server has forgotten it
        else:
            text = following(assignment, plan)
            proposal = b"" if text is None else b"%d %s" % (self.number + 1, text)
        if proposal != self._proposal:
            self._proposal = proposal
            self._proposed_ns = now_ns
        turn = min(eldest.index(holder), POLLS_PER_TTL)
        return proposal, self._proposed_ns + turn * self._period_ns
