-- Commits how far a batch of partitions is processed, each under the epoch of its election.
--
-- KEYS  1: totals   then for each partition: epoch key, checkpoint key, journal key
-- ARGV  1: node     then for each partition: epoch, first event, event after the last, digest
-- reply one value a partition:
--         1      committed
--         0      refused: a newer epoch was granted, or has committed
--         text   failed, and this partition alone; nothing of it was written
--
-- The fence is the whole check. That commits follow on each other is left to whoever reads
-- the journal afterwards: a check here would hide the very mistakes which that reader seeks.
-- The checkpoint repeats the epoch, so the fence holds even where the counter was lost.

local TOTALS, NODE = KEYS[1], ARGV[1]

local function newest_epoch(epoch_key, checkpoint_key)
  local counter = redis.pcall('GET', epoch_key)
  if type(counter) == 'table' then return nil, counter.err end
  local checkpoint = redis.pcall('GET', checkpoint_key)
  if type(checkpoint) == 'table' then return nil, checkpoint.err end
  local granted = tonumber(counter or 0)
  if not granted then return nil, 'ERR the epoch counter is not a number' end
  local committed = tonumber(checkpoint and string.match(checkpoint, '(%d+)$') or 0)
  return math.max(granted, committed)
end

local function commit(keys, args)
  local epoch_key, checkpoint_key, journal_key = KEYS[keys], KEYS[keys + 1], KEYS[keys + 2]
  local epoch, first, after, digest = ARGV[args], ARGV[args + 1], ARGV[args + 2], ARGV[args + 3]
  local newest, trouble = newest_epoch(epoch_key, checkpoint_key)
  if trouble then return trouble end
  if tonumber(epoch) < newest then return 0 end
  -- The journal comes first, as only its write can still fail.
  local entry = epoch .. ' ' .. first .. ' ' .. after .. ' ' .. digest .. ' ' .. NODE
  local written = redis.pcall('RPUSH', journal_key, entry)
  if type(written) == 'table' then return written.err end
  redis.call('SET', checkpoint_key, after .. ' ' .. digest .. ' ' .. epoch)
  return 1
end

local outcomes, events, refused = {}, 0, 0
for place = 0, (#KEYS - 1) / 3 - 1 do
  local args = 2 + 4 * place
  local outcome = commit(2 + 3 * place, args)
  if outcome == 1 then events = events + ARGV[args + 2] - ARGV[args + 1] end
  if outcome == 0 then refused = refused + 1 end
  outcomes[place + 1] = outcome
end
redis.call('HINCRBY', TOTALS, 'events', events)
redis.call('HINCRBY', TOTALS, 'refused', refused)
return outcomes
