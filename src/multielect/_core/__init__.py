"""The core: no sockets, no clock, no threads, no randomness of its own.

From the bottom up, each importing only what stands above it here:

    slots             where elections live: one C struct each, those of a bucket together
    candidacy         what any thread may read of an election at any time
    timers            when each election is due
    queues            which elections of a bucket wait to be sent, and which buckets of a lane
    refresh_groups    when the leases of each bucket are refreshed
    holders           the names of other leaders, each once
    events            terms that began and ended, and errors, until they are taken
    lateness          how late refreshes are sent, for a benchmark that asks
    states            the states of an election, and the only writers of them
    drains            terms that are handed over to another node
    terms             what moves an election from one state to the next
    checks            what holds for every slot: checked in the debug build
    resp              the Redis protocol, as bytes
    membership        when this node polls the membership of its fleet
    wakeups           announcements: elections set free, granted or claimed
    script_batch      the elections that one script is about
    slot_map          which lane serves which bucket
    redirects         what nodes of a cluster say of slots that are elsewhere
    batch_writer      writes a batch as the call of a script
    server_clock      whether a server's clock jumped
    replies           what a server answers to a batch
    lane              one connection: batches out, replies in
    mutex             the one mutex of a core
    elections         what users ask of the elections of a node
    fleet             what a fleet tells its node
    records           what comes out of a core, as Python has it
    reporter          takes that from a core
    core              all of it: the C entry points of the pump
    driver            the same entry points for Python
"""
