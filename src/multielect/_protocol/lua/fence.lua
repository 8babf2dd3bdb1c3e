-- Makes each write of the batch whose epoch is not older than the newest of its election.
--
-- KEYS  of each write: epoch key, fence key, then the keys of its body
-- ARGV  of each write: epoch, number of the body's keys, number of its arguments, those
-- reply one entry a write:
--         {1, reply}    made: what the body answered
--         {0, newest}   stale: nothing was done
--         {-1, text}    failed: before the body nothing was done; in it, what it had done stays
--
-- `body(KEYS, ARGV)` stands before this text, and cannot see what follows.
--
-- The newest epoch is in two places: the counter, raised by whoever is elected, and the
-- fence, raised by whoever writes. Should one be lost the other still refuses the older
-- epochs, and the one that lags is raised: so the next to be elected comes after all who
-- wrote. Both are raised before the body runs, as that may fail half way.

local LARGEST = 9007199254740991

-- Before 7.2 the server does not say which command it refuses to its user.
local function named(reason, command)
  reason = tostring(reason)
  if not string.find(reason, "can't run this command", 1, true) then return reason end
  return reason .. " (the '" .. command .. "' command)"
end

local function read(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then return nil, named(value.err, 'get') end
  if not value then return -1 end
  if not string.match(value, '^%-?%d+$') then return nil, 'ERR the epoch is not an integer' end
  local epoch = tonumber(value)
  if epoch > LARGEST then return nil, 'ERR the epoch is beyond 2^53' end
  return epoch
end

local function raise(key, from, epoch)
  if from >= epoch then return nil end
  local set = redis.pcall('SET', key, string.format('%.0f', epoch))
  return set.err and named(set.err, 'set')
end

local function failure(reason)
  if type(reason) == 'table' then reason = reason.err end
  reason = tostring(reason)
  -- Before 7.0 the server puts the place in the script before what it says.
  reason = string.gsub(string.gsub(reason, '^@[%w_]+: %d+: %-?', ''), '%s+$', '')
  -- What Lua says itself has no code; what the server says begins with one.
  if not string.match(reason, '^%u+ ') then reason = 'ERR ' .. reason end
  return {-1, reason}
end

local function write(epoch_key, fence_key, epoch, keys, arguments)
  local counter, why = read(epoch_key)
  if not counter then return failure(why) end
  local fence
  fence, why = read(fence_key)
  if not fence then return failure(why) end

  local newest = math.max(counter, fence)
  if epoch < newest then
    raise(epoch_key, counter, newest)
    return {0, newest}
  end
  why = raise(fence_key, fence, epoch) or raise(epoch_key, counter, epoch)
  if why then return failure(why) end

  local done, reply = pcall(body, keys, arguments)
  if not done then return failure(reply) end
  if type(reply) == 'table' and reply.err then return failure(reply) end
  -- A nil would cut the entry short.
  if reply == nil then reply = false end
  return {1, reply}
end

local outcomes = {}
local key, argument = 1, 1
while key <= #KEYS do
  local epoch = tonumber(ARGV[argument])
  local key_count, argument_count = tonumber(ARGV[argument + 1]), tonumber(ARGV[argument + 2])
  argument = argument + 3
  local keys, arguments = {}, {}
  for i = 1, key_count do keys[i] = KEYS[key + 1 + i] end
  for i = 1, argument_count do arguments[i] = ARGV[argument + i - 1] end
  outcomes[#outcomes + 1] = write(KEYS[key], KEYS[key + 1], epoch, keys, arguments)
  key = key + 2 + key_count
  argument = argument + argument_count
end
return outcomes
