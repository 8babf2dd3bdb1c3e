"""`multielect bench`: what it costs, measured beside the server's own limit and the others.

Rules of this package:
    * What is compared is measured in the same run, in turns: a machine that drifts drifts for all.
    * Every value of every round is kept, so that medians, spread and ratios can be checked.
    * `findings`, `spread` and `percentiles` only compute. What runs is in the suites and in what
      they measure with; each suite is one file, and can be read alone.

One file a subject::

    command, progress                         what is typed, and what is seen meanwhile
    report, plot                              what comes of it
    suites                                    the list; one file each:
    refresh, hold, ...                            a question, and how it is answered
    suite                                     what a suite is, and what it is given
    contenders, ours, floor, peers            whom `refresh` measures
    poller                                    whom `takeover` measures beside us
    raw, servers, children, machine           what suites measure with
    findings, spread, percentiles             values of rounds, and what follows from them

To add a suite, write a class as `suite.Suite` says in a file of its own, and name it in `suites`.
"""
