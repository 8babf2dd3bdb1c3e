"""`multielect demo`: flight events, one election for each aircraft, and nodes that fail.

The parts, from the input to the output:

    events.py       reads a CSV, or a zip of one
    stream.py       the events as a replayed stream of partitions, shared with the nodes by file
    checkpoint.py   how far each partition is committed, through a fence, by commit.lua
    beliefs.py      what each node believed to lead, and when, in a file that outlives it
    sampler.py      reads `is_leader` from outside the callbacks
    worker.py       processes the events of the elections that its node leads
    node.py         one process: a group, a worker and a sampler
    process.py      the conductor's end of a node process
    leases.py       the leader of each election and the end of its lease, read from the server
    takeover.py     how long elections were without a leader
    plan.py         what happens to which node, and when
    fleet.py        the processes of the nodes
    watch.py        checks the state of the run, shows it, and waits
    mishaps.py      a freeze, a join, a crash and a clean stop, with their results
    conductor.py    the run from its start to the verdict
    result.py       the results of a run
    verdict.py      checks journal and beliefs
    report.py       the summary, as text and as JSON
    view.py         what the user sees during the run
    command.py      options, errors and exit status

Why the demo has worker.py and does not use `multielect.streams`: a consumer needed 0.34 ms of CPU
time for an event, and all of the demo needs 0.10 ms (`benchmarks/streams.py --nodes 3 --seconds 40
--changes 0` on the year of flights, and the demo on the same). A year in 40 s is 8,400 events a
second. It would keep three cores busy, and the takeovers would measure that and not the elections.
A consumer also sets the callbacks of its group, which the checker needs.
"""
