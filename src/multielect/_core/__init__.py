"""The core: no sockets, no clock, no threads, no randomness of its own.

The modules from the bottom up. Each imports only modules that stand above it here:

    slots             stores elections: one C struct each, those of a bucket together
    candidacy         what any thread may read of an election at any time
    timers            one timer for each election
    queues            elections of a bucket that wait to be sent, and buckets of a lane
    refresh_groups    when the leases of each bucket are refreshed
    holders           the names of other leaders, each stored once
    events            terms that began or ended, and errors, until the reporter takes them
    lateness          how late refreshes are sent, for a benchmark
    states            the states of an election, and the only functions that change them
    drains            terms that this node hands over to another
    outcomes          what the server's answers do to an election
    terms             what users, time and wake-ups do to an election, and what is sent for it
    checks            checks every slot, in the debug build
    resp              the Redis protocol: bytes to values, commands to bytes
    membership        when this node polls the membership of its fleet
    wakeups           announcements: elections that are free, granted or claimed
    script_batch      the elections of one script call
    slot_map          which lane serves which bucket
    redirects         follows what nodes of a cluster say of slots that are elsewhere
    batch_writer      writes a batch as the call of a script
    server_clock      detects jumps of a server's clock
    replies           reads a server's answers to batches
    lane              one connection: sends batches, takes replies
    mutex             the one mutex of a core
    elections         what users may ask of a node's elections
    fleet             what the fleet tells this node
    records           the Python objects that a core reports
    reporter          takes events and errors from a core
    core              joins all of these: the C entry points of the pump
    driver            the same entry points for Python
"""
