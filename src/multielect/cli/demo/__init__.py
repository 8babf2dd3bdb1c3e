"""`multielect demo`: flight events, one election an aircraft, and nodes that fail.

The parts, from what is processed to what is shown:

    events.py       reads a CSV, or a zip of one
    stream.py       the events as a replayed stream of partitions, shared with the nodes by file
    checkpoint.py   how far each partition is committed; commit.lua is the fence
    beliefs.py      what each node believed to lead, and when, in a file that outlives it
    sampler.py      looks at `is_leader` from outside the callbacks
    worker.py       processes the events of the elections that its node leads
    node.py         one process: a group, a worker and a sampler
    process.py      the conductor's end of a node process
    leases.py       who leads what, and until when, as the server has it
    takeover.py     how long elections were without a leader
    conductor.py    starts the nodes, makes them fail, waits for the end of the stream
    verdict.py      holds journal and beliefs against what must be true
    report.py       the summary, and the same as JSON
    view.py         what is seen while it runs
    command.py      options, errors and exit status
"""
