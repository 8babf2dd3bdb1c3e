-- Ends every term of the batch that is still this holder's, and wakes those who wait.
--
-- KEYS  leader key and epoch key of each election, in pairs
-- ARGV  1: this holder   2: wake-up channel   3...: the epoch of each term
-- reply {server time in ms, n...}: the positions of the terms that were ended
--
-- The epoch is compared as well as the holder, so that a release that arrives late, on a
-- connection already given up, never ends a newer term of the same holder.
-- One message tells of all: netstrings (length ':' bytes), the holder first and then the
-- leader keys set free.

local holder, channel = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local reply = {clock[1] * 1000 + math.floor(clock[2] / 1000)}
local message = {#holder .. ':' .. holder}
local values = values_of(KEYS)
local ours = {}

for i = 1, #KEYS, 2 do
  local election = (i + 1) / 2
  if values[i] == holder and values[i + 1] == ARGV[election + 2] then
    ours[#ours + 1] = KEYS[i]
    reply[#reply + 1] = election
    message[#message + 1] = #KEYS[i] .. ':' .. KEYS[i]
  end
end
if #ours == 0 then return reply end
-- They are there: nothing ends while a script runs.
local deleted = try('DEL', unpack(ours))
if deleted ~= #ours then return {reply[1]} end
-- A server that forbids PUBLISH costs the others a wait, not the batch its outcome.
try('PUBLISH', channel, table.concat(message))
return reply
