-- Ends every term of the batch that is still this holder's, and wakes those who wait.
--
-- KEYS  leader key and epoch key of each election, one after the other; where epochs expire also
--       its fence key, and one more ARGV: see epochs_expire.lua
-- ARGV  1: this holder   2: wake-up channel   3...: the epoch of each term
-- reply {server time in ms, {n, epoch, ...}, {n, error, ...}}: the positions of the leases that
--       are this holder's but whose counter is at another epoch, and which; and of those that could
--       not be ended. Position 0: the others could not be told
--
-- The epoch is compared as well as the holder, so that a release that arrives late, on a
-- connection already given up, never ends a newer term of the same holder. A fence that was written
-- under a newer epoch raises the counter too: so the holder is told, and knows which it was.
-- One message tells of all: netstrings (length ':' bytes), the holder first and then the
-- leader keys set free.

local holder, channel = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local reply = {clock[1] * 1000 + math.floor(clock[2] / 1000), {}, {}}
local values = values_of(KEYS)
local ours, places = {}, {}

for i = 1, #KEYS, STRIDE do
  local election = (i - 1) / STRIDE + 1
  if values[i] == holder and values[i + 1] == ARGV[election + 2] then
    ours[#ours + 1] = KEYS[i]
    places[#places + 1] = election
  elseif values[i] == holder then
    report_epoch(reply[2], election, values[i + 1])
  end
end
if #ours == 0 then return reply end
-- They are there: nothing ends while a script runs.
if try('DEL', unpack(ours)) ~= #ours then
  ours, places = deleted_alone(ours, places, reply[3])
end
for _, place in ipairs(places) do
  let_expire(place, reply[1], ARGV[place + 2], values[STRIDE * place])
end
if #ours > 0 then
  local message = {netstring(holder)}
  for _, leader_key in ipairs(ours) do message[#message + 1] = netstring(leader_key) end
  publish(channel, message, reply[3])
end
return reply
