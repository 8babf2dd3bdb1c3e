-- Moves a checkpoint on, together with all that was staged for the same step.
--
-- KEYS  checkpoint, then those of what was staged
-- ARGV  the checkpoint as it must be, as it shall be, the entries in between, the epoch, then for
--       each thing staged: its name, the number of its keys, their places in KEYS, the number of
--       its arguments, those. The name is XADD, HSET or SET, or the number of one of `bodies`
-- reply {'DONE'}       it was
--       {'AGAIN'}      it had been before: this was sent a second time; nothing was done
--       {'MOVED', id}  the checkpoint is neither; nothing was done
--
-- Runs behind the fence. `bodies`, `try` and `refusal` stand before this text. What can be known to
-- fail is looked for before anything is done: keys of another type, and rights that are missing.

local wanted_type = {XADD = 'stream', HSET = 'hash'}
local seen = {}

local function is_error(reply)
  return type(reply) == 'table' and reply.err
end

-- Returns why a command cannot be made on a key; nothing where it can.
local function hindrance(name, key, arguments)
  local one = name .. ' ' .. key
  if seen[one] then return nil end
  seen[one] = true
  local refused = refusal(name, key, unpack(arguments))
  local wanted = wanted_type[name]
  if is_error(refused) or not wanted then return refused end
  local found = try('TYPE', key)
  if is_error(found) then return found end
  if found.ok ~= wanted and found.ok ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. key .. ' is no ' .. wanted)
  end
end

local here = try('HMGET', KEYS[1], 'id', 'read')
if here.err then return here end
if here[1] == ARGV[2] then return {'AGAIN'} end
if here[1] ~= ARGV[1] then return {'MOVED', here[1] or ''} end

local moved = {'id', ARGV[2], 'epoch', ARGV[4]}
-- What is no number was not counted by us.
local read = tonumber(here[2] or nil)
if read then
  moved[5], moved[6] = 'read', string.format('%.0f', read + tonumber(ARGV[3]))
end
local hindered = hindrance('HSET', KEYS[1], moved)

local staged = {}
local at = 5
while at <= #ARGV and not hindered do
  local one = {name = ARGV[at], keys = {}, arguments = {}}
  local count = tonumber(ARGV[at + 1])
  for i = 1, count do one.keys[i] = KEYS[tonumber(ARGV[at + 1 + i])] end
  at = at + 2 + count
  count = tonumber(ARGV[at])
  for i = 1, count do one.arguments[i] = ARGV[at + i] end
  at = at + 1 + count
  if not tonumber(one.name) then hindered = hindrance(one.name, one.keys[1], one.arguments) end
  staged[#staged + 1] = one
end
if hindered then return hindered end

for _, one in ipairs(staged) do
  local body = bodies[tonumber(one.name)]
  local reply
  if body then
    reply = body(one.keys, one.arguments)
  else
    reply = try(one.name, one.keys[1], unpack(one.arguments))
  end
  if is_error(reply) then return reply end
end

local kept = try('HSET', KEYS[1], unpack(moved))
return is_error(kept) and kept or {'DONE'}
