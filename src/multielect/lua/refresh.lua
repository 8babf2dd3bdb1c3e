-- Extends every lease of the batch that this holder still holds.
--
-- KEYS  leader key of each election
-- ARGV  1: this holder   2: TTL in ms
-- reply {server time in ms, {n...}, {n, error, ...}}: the positions of the keys that
--       are not this holder's, and of those that are but could not be extended
--
-- A key of another type, or none, is not ours. A key that is ours and was not extended
-- (servers before 7.0 answer 0 on a replica) is no proof that the lease is lost.

local holder, ttl_ms = ARGV[1], ARGV[2]
local clock = redis.call('TIME')
local not_ours, failed = {}, {}

for i = 1, #KEYS do
  if redis.pcall('GET', KEYS[i]) ~= holder then
    not_ours[#not_ours + 1] = i
  else
    local extended = redis.pcall('PEXPIRE', KEYS[i], ttl_ms)
    if extended ~= 1 then
      failed[#failed + 1] = i
      failed[#failed + 1] = type(extended) == 'table' and extended
        or redis.error_reply('READONLY the server did not extend the lease')
    end
  end
end
return {clock[1] * 1000 + math.floor(clock[2] / 1000), not_ours, failed}
