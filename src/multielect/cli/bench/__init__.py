"""`multielect bench`: measures costs, beside the server's limit and other libraries.

Rules of this package:
    * Figures that are compared are measured in the same run, in turns. So a machine that becomes
      slower does so for all of them.
    * Every value of every round is kept, so that medians, spread and ratios can be checked.
    * `results` only computes and reports. The suites and their instruments run everything. Each
      suite is one file, which can be read alone.

The parts::

    command, progress     the command line, and the progress bar
    suite                 the interface of a suite
    suites/               the suites: each answers one question
    subjects/             what is measured: multielect, the server's limit, others, a poller
    instruments/          the means: servers, processes, sockets, the machine
    results/              values of rounds, statistics, tables, JSON and plots

To add a suite, write a class with the interface `suite.Suite` in a file of `suites`, and add it to
the list there.
"""
