-- Takes every free lease of the batch, each under a new epoch.
--
-- KEYS  leader key and epoch key of each election, in pairs
-- ARGV  1: this holder   2: TTL in ms   3: 'time' or 'counter'
--       4: the channel on which to claim what others lead, or nothing to claim nothing
--       5...: of each election that has a floor: its position, and the floor
-- reply {server time in ms, {holders}, outcome...}, one outcome an election:
--         > 0    won: the new epoch
--         < 0    led by another: -(remaining ms * 256 + n), its holder being holders[n]; for a
--                lease without an end, one ms more than a day
--         error  this election failed, and this one alone
--       and after them, if the leaders could not be told of claims, the error
--
-- A floor is an epoch that somebody is known to have led or written under, though the counter
-- here may not know it: the new epoch is above it too.
--
-- A claim tells a leader that this holder was assigned the election: one message a leader,
-- netstrings (length ':' bytes), '/' and the leader's holder, 'claim', this holder, and the
-- leader keys.
--
-- What can fail comes before what takes the lease: a script that stops half way keeps
-- its first half, and an epoch without a lease is harmless where a lease without an
-- epoch is not. So a leader key of another type costs an epoch before it is noticed. Lua counts exactly up to 2^53, so a larger counter is refused.

local holder, ttl_ms, by_time = ARGV[1], ARGV[2], ARGV[3] == 'time'
local LARGEST, ONE_DAY_MS = 9007199254740991, 86400000
local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now_text = string.format('%.0f', now_ms)

local claims = ARGV[4] ~= ''
local holders, place_of, claimed = {}, {}, {}

local function led_by(other, leader_key)
  -- No name of ours is as long: what else stands there is shown in part.
  other = string.sub(other, 1, 1100)
  local place = place_of[other]
  if not place then
    place = #holders + 1
    holders[place] = other
    place_of[other] = place
    claimed[place] = {netstring('/' .. other), netstring('claim'), netstring(holder)}
  end
  if claims then table.insert(claimed[place], netstring(leader_key)) end
  local remaining_ms = redis.call('PTTL', leader_key)
  if remaining_ms < 0 then return -((ONE_DAY_MS + 1) * 256 + place) end
  return -(math.min(remaining_ms, ONE_DAY_MS) * 256 + place)
end

local function refused(counter)
  if not counter then return redis.error_reply('ERR epoch counter is not an integer') end
  if counter >= LARGEST then return redis.error_reply('ERR epoch counter would overflow') end
end

local function counted(epoch_key)
  local last = try('GET', epoch_key)
  if type(last) == 'table' then return last end
  local refusal = refused(tonumber(last or 0))
  return refusal or try('INCR', epoch_key)
end

local function raise(epoch_key, floor)
  local refusal = refused(floor)
  if refusal then return refusal end
  local last = try('GET', epoch_key)
  if type(last) == 'table' then return last end
  last = last or '0'
  -- What is no integer is refused where the epoch is minted.
  if not string.match(last, '^%-?%d+$') or tonumber(last) >= floor then return nil end
  local set = try('SET', epoch_key, string.format('%.0f', floor))
  return set.err and set
end

local function next_epoch(epoch_key)
  if not by_time then return counted(epoch_key) end
  -- Almost always the time is the greater: one call sets it and tells what was there.
  local last = try('SET', epoch_key, now_text, 'GET')
  if not last then return now_ms end
  if type(last) == 'table' then return last end
  local counter = string.match(last, '^%-?%d+$') and tonumber(last)
  if counter and counter < now_ms then return now_ms end
  local refusal = refused(counter)
  local epoch_text = refusal and last or string.format('%.0f', counter + 1)
  local set = try('SET', epoch_key, epoch_text)
  if set.err then return set end
  return refusal or counter + 1
end

local function campaign(leader_key, epoch_key, leader, floor)
  if type(leader) == 'table' then return leader end
  if leader and leader ~= holder then return led_by(leader, leader_key) end
  local refusal = floor and raise(epoch_key, floor)
  if refusal then return refusal end
  local epoch = next_epoch(epoch_key)
  if type(epoch) == 'table' then return epoch end
  -- A lease found to be ours is taken over; one that looked free may be a key of another type.
  local taken = leader and try('SET', leader_key, holder, 'PX', ttl_ms)
    or try('SET', leader_key, holder, 'PX', ttl_ms, 'NX')
  if not taken then return try('GET', leader_key) end
  if taken.err then return taken end
  return epoch
end

local leader_keys = {}
for i = 1, #KEYS, 2 do leader_keys[#leader_keys + 1] = KEYS[i] end
local leaders = values_of(leader_keys)
local floors = {}
for i = 5, #ARGV, 2 do floors[tonumber(ARGV[i])] = tonumber(ARGV[i + 1]) end
local reply = {now_ms, holders}
for i, leader_key in ipairs(leader_keys) do
  reply[#reply + 1] = campaign(leader_key, KEYS[2 * i], leaders[i], floors[i])
end
local untold = {}
if claims then
  for _, message in ipairs(claimed) do publish(ARGV[4], message, untold) end
end
-- One of them says it for all.
reply[#reply + 1] = untold[2]
return reply
