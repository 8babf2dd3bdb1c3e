-- Records how far a partition is processed, in its checkpoint, its journal and its bucket's counter of events.
--
-- KEYS  checkpoint, journal, counter of events
-- ARGV  node, epoch, first event, event after the last, digest
--
-- The fence is the only check. The checker that reads the journal afterwards finds commits that do
-- not follow on each other. A check here would hide the mistakes that the checker looks for.

local node, epoch, first, after, digest = unpack(ARGV)
-- The journal comes first, as only its write can still fail.
redis.call('RPUSH', KEYS[2], table.concat({epoch, first, after, digest, node}, ' '))
redis.call('SET', KEYS[1], after .. ' ' .. digest)
redis.call('INCRBY', KEYS[3], after - first)
return 1
