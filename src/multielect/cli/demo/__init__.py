"""`multielect demo`: flight events, one election an aircraft, and nodes that fail.

The parts, from what is processed to what is shown:

    events.py       reads a CSV, or a zip of one
    stream.py       the events as a replayed stream of partitions, shared with the nodes by file
    checkpoint.py   how far each partition is committed, through a fence; commit.lua does it
    beliefs.py      what each node believed to lead, and when, in a file that outlives it
    sampler.py      looks at `is_leader` from outside the callbacks
    worker.py       processes the events of the elections that its node leads
    node.py         one process: a group, a worker and a sampler
    process.py      the conductor's end of a node process
    leases.py       who leads what, and until when, as the server has it
    takeover.py     how long elections were without a leader
    plan.py         what is to happen to which node, and when
    fleet.py        the processes of the nodes
    watch.py        looks how things stand, shows it, and waits
    mishaps.py      a freeze, a join, a crash, a clean stop, and what came of each
    conductor.py    the run from its start to the verdict
    result.py       all that came of it
    verdict.py      holds journal and beliefs against what must be true
    report.py       the summary, and the same as JSON
    view.py         what is seen while it runs
    command.py      options, errors and exit status

Why worker.py and not `multielect.streams`: a consumer took 0.34 ms of CPU an event where all of
this takes 0.10 (`benchmarks/streams.py --nodes 3 --seconds 40 --changes 0` on the year of flights,
and the demo on the same). A year in 40 s, 8,400 events a second, would keep three cores busy, and
the takeovers would show that and not the elections. A consumer also keeps the callbacks of its
group to itself, which are what the checker goes by.
"""
