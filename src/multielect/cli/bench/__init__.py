"""`multielect bench`: what it costs, measured beside the server's own limit and the others.

Rules of this package:
    * What is compared is measured in the same run, in turns: a machine that drifts drifts for all.
    * Every value of every round is kept, so that medians, spread and ratios can be checked.
    * `results` only computes and tells. What runs is in the suites and in what they measure with;
      each suite is one file, and can be read alone.

By what a reader looks for::

    command, progress     what is typed, and what is seen meanwhile
    suite                 what a suite is, and what it is given
    suites/               a question each, how it is answered, and the list of them
    subjects/             who is measured: ours, the server's own limit, others, a poller
    instruments/          what is measured with: servers, processes, sockets, the machine
    results/              values of rounds, what follows from them, tables, JSON and plots

To add a suite, write a class as `suite.Suite` says in a file of `suites`, and add it to the list
there.
"""
