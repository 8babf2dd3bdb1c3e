"""The core: no sockets, no clock, no threads, no randomness of its own.

From the bottom up, each importing only what stands above it here:

    slots             where elections live: one C struct each
    schedule          when each is due, and which wait to be sent
    refresh_groups    the same for leases, which are refreshed together
    resp              the Redis protocol, as bytes
    holders           the names of other leaders, each once
    events            what there is to tell
    lateness          how late refreshes go out, for those who ask
    membership        when this node polls the membership of its fleet
    terms             the states of an election and what moves it from one to the next
    wakeups           announcements of elections set free
    lane              batches in flight on one connection
    candidacy         what any thread may read at any time
    checks            what holds for every slot: looked at in the debug build
    core              all of it as the engine sees it
"""
