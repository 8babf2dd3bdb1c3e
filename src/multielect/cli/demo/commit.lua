-- Notes how far a partition is processed: in its checkpoint, its journal and the totals.
--
-- KEYS  checkpoint, journal, totals
-- ARGV  node, epoch, first event, event after the last, digest
--
-- Runs behind the fence, which is the whole check. That commits follow on each other is left to
-- whoever reads the journal afterwards: a check here would hide the very mistakes which that
-- reader seeks.

local node, epoch, first, after, digest = unpack(ARGV)
-- The journal comes first, as only its write can still fail.
redis.call('RPUSH', KEYS[2], table.concat({epoch, first, after, digest, node}, ' '))
redis.call('SET', KEYS[1], after .. ' ' .. digest)
redis.call('HINCRBY', KEYS[3], 'events', after - first)
return 1
