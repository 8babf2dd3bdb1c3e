-- Ends every term of the batch that is still this holder's, each for the sake of its successor.
--
-- KEYS  as of release.lua
-- ARGV  1: this holder   2: wake-up channel   3: how long a grant lasts, in ms
--       4...: of each election: the epoch of the term, and the holder of its successor, or nothing
-- reply {server time in ms, {n, epoch, ...}, {n, error, ...}}, as of release.lua
--
-- A grant is a lease in the successor's name, which nobody else can take. It makes no leader: the
-- successor takes it over by an acquire, as any lease found to hold its own incarnation, and so
-- under a new epoch and with a deadline of its own. A successor that is gone costs the election
-- what the grant lasts. Without a successor the lease is deleted, as by release.lua, and the epoch
-- is compared for the reason given there.
-- One message tells each successor: netstrings (length ':' bytes), '/' and the successor, 'grant',
-- and the leader keys. What is left without a successor is told to all, as by release.lua.

local holder, channel, grant_ms = ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local reply = {clock[1] * 1000 + math.floor(clock[2] / 1000), {}, {}}
local messages, order = {}, {}

-- Returns for whom it was ended; '' for all, nothing if it was not.
local function end_term(place, leader_key, successor)
  -- A full server refuses SET: then the election is free for all.
  if successor ~= '' and not try('SET', leader_key, successor, 'PX', grant_ms).err then
    return successor
  end
  local deleted = try('DEL', leader_key)
  if type(deleted) ~= 'table' then return '' end
  report_failure(reply[3], place, deleted)
end

local function announce(successor, leader_key)
  local message = messages[successor]
  if not message then
    if successor == '' then
      message = {netstring(holder)}
    else
      message = {netstring('/' .. successor), netstring('grant')}
    end
    messages[successor] = message
    order[#order + 1] = successor
  end
  message[#message + 1] = netstring(leader_key)
end

local values = values_of(KEYS)
for i = 1, #KEYS, STRIDE do
  local place = (i - 1) / STRIDE + 1
  local epoch = ARGV[2 * place + 2]
  if values[i] == holder and values[i + 1] == epoch then
    local successor = end_term(place, KEYS[i], ARGV[2 * place + 3])
    if successor then
      announce(successor, KEYS[i])
      let_expire(place, reply[1], epoch, values[STRIDE * place])
    end
  elseif values[i] == holder then
    report_epoch(reply[2], place, values[i + 1])
  end
end
for _, successor in ipairs(order) do publish(channel, messages[successor], reply[3]) end
return reply
