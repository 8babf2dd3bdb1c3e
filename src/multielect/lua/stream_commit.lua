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
-- Runs behind the fence. `bodies` stands before this text. What can be known to fail is looked
-- for before anything is done.

local wanted_type = {XADD = 'stream', HSET = 'hash'}

local here = redis.call('HMGET', KEYS[1], 'id', 'read')
if here[1] == ARGV[2] then return {'AGAIN'} end
if here[1] ~= ARGV[1] then return {'MOVED', here[1] or ''} end

local staged = {}
local at = 5
while at <= #ARGV do
  local one = {name = ARGV[at], keys = {}, arguments = {}}
  local count = tonumber(ARGV[at + 1])
  for i = 1, count do one.keys[i] = KEYS[tonumber(ARGV[at + 1 + i])] end
  at = at + 2 + count
  count = tonumber(ARGV[at])
  for i = 1, count do one.arguments[i] = ARGV[at + i] end
  at = at + 1 + count
  local wanted = wanted_type[one.name]
  if wanted then
    local found = redis.call('TYPE', one.keys[1]).ok
    if found ~= wanted and found ~= 'none' then
      return redis.error_reply('WRONGTYPE ' .. one.keys[1] .. ' is no ' .. wanted)
    end
  end
  staged[#staged + 1] = one
end

for _, one in ipairs(staged) do
  local body = bodies[tonumber(one.name)]
  if body then
    local reply = body(one.keys, one.arguments)
    if type(reply) == 'table' and reply.err then return reply end
  else
    redis.call(one.name, one.keys[1], unpack(one.arguments))
  end
end

redis.call('HSET', KEYS[1], 'id', ARGV[2], 'epoch', ARGV[4])
if here[2] then redis.call('HINCRBY', KEYS[1], 'read', ARGV[3]) end
return {'DONE'}
